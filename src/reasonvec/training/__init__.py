"""Training of donors with TRL: supervised fine-tuning, then GRPO; rewards are evaluation's graders."""

from importlib.util import find_spec

from reasonvec.errors import MissingExtraError


def require(extra: str, *packages: str) -> None:
    """Raise MissingExtraError, naming the pip line, if any of `packages` is not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingExtraError(
            f"This needs Python packages that are not installed: {', '.join(missing)}. Install them with: "
            f'pip install "reasonvec[{extra}]"'
        )


require("train", "torch", "transformers", "trl", "accelerate", "datasets")
