"""The arm of a run: which weights answered. Identities, so that two arms can be told apart and one found again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonvec.errors import UsageError, VectorError
from reasonvec.weights.application import plan_apply
from reasonvec.weights.checkpoint import Checkpoint, tensor_reader
from reasonvec.weights.files import sha256_of
from reasonvec.weights.hub import locate_checkpoint, locate_vector
from reasonvec.weights.job import Options
from reasonvec.weights.provenance import absolute, fingerprint
from reasonvec.weights.receipt import RECEIPT, read_receipt
from reasonvec.weights.tensors import digest_of
from reasonvec.weights.vector import Vector


@dataclass(frozen=True)
class Arm:
    """A checkpoint, and the vector that is added to it once it is loaded."""

    checkpoint: Checkpoint
    vector: Vector | None
    alpha: float | None
    """None without a vector."""
    warnings: tuple[str, ...]
    """What `apply` would warn of."""

    def to_json(self) -> dict[str, Any]:
        """Everything that the answers may depend on, by content. Reads all weights."""
        checkpoint = self.checkpoint
        with tensor_reader(drop_behind=False) as reader:
            digests = [(entry, digest_of(entry, reader)) for entry in checkpoint.tensors.values()]
        return {
            "checkpoint": absolute(checkpoint.location),
            "revision": checkpoint.revision,
            "fingerprint": fingerprint(digests),
            "small_files": {name: sha256_of(checkpoint.path / name) for name in checkpoint.small_files()},
            **self._added(),
        }

    def _added(self) -> dict[str, Any]:
        """The vector, whether it was attached here or written into the checkpoint before."""
        if self.vector is not None:
            control = self.vector.document.get("control") or {}
            return {
                "vector": absolute(self.vector.location),
                "vector_fingerprint": self.vector.fingerprint,
                "alpha": self.alpha,
                "control": control.get("kind"),
                "attached": True,
            }
        written = _written(self.checkpoint.path)
        one = written[0] if len(written) == 1 else None
        return {
            "vector": one["location"] if one else None,
            "vector_fingerprint": one["fingerprint"] if one else None,
            "alpha": float(one["alpha"]) if one else None,
            "control": _control_of(one["location"]) if one else None,
            "attached": False,
        }


def open_arm(checkpoint: str | Path, *, vector: str | Path | None, alpha: float | None, offline: bool = False) -> Arm:
    """Open a checkpoint, and the vector to add to it, by path or Hub id.

    Raises UsageError for an alpha without a vector, and what `apply` raises of a vector that does not fit.
    """
    if vector is None and alpha is not None:
        raise UsageError(f"--alpha {alpha} has nothing to scale: name a vector with --vector, or leave it out.")
    if vector is None:
        return Arm(locate_checkpoint(checkpoint, offline=offline), None, None, ())
    alpha = 1.0 if alpha is None else alpha
    # what `apply` would refuse, from headers alone
    plan = plan_apply(vectors=[(vector, alpha)], alphas=[alpha], target=checkpoint, options=Options(), offline=offline)
    opened = next(each for each in plan.inputs if isinstance(each, Vector))
    return Arm(plan.target, opened, alpha, tuple(plan.warnings(plan.settings[0], None)))


def _written(checkpoint: Path) -> list[dict[str, Any]]:
    """The vectors that an enhanced checkpoint's receipt says were added to it."""
    if not (checkpoint / RECEIPT).is_file():
        return []
    try:
        return list(read_receipt(checkpoint).get("vectors", []))
    except VectorError:
        return []  # a receipt that cannot be read claims nothing; the weights are known by their fingerprint


def _control_of(location: str) -> str | None:
    """Which control the vector was, where it is still there to be asked."""
    try:
        kind = (locate_vector(location, offline=True).document.get("control") or {}).get("kind")
    except (VectorError, UsageError):
        return None
    return None if kind is None else str(kind)
