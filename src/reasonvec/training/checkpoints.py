"""Writing a trained model as an ordinary checkpoint, whole or not at all. Reading one is transformers' own business."""

import shutil
import tempfile
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from reasonvec.errors import CheckpointError, OutputError


def refuse_existing(out: Path) -> None:
    """Fail before the expensive part where `out` exists: nothing is overwritten."""
    if out.exists():
        raise OutputError(f"{out} exists already, and training does not overwrite. Remove it or name another --out.")


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, out: Path) -> None:
    """Write model, configuration, tokenizer and chat template to the directory `out`, which must not exist.

    Everything is written to a temporary sibling that is renamed at the end, so a killed run leaves no `out` at all.
    """
    refuse_existing(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".partial", dir=out.parent))
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        partial.chmod(0o755)  # mkdtemp makes it private
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def load_checkpoint(checkpoint: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer of a directory, the model in the dtype it is stored in; the network is not asked."""
    if not (checkpoint / "config.json").is_file():
        raise CheckpointError(
            f"{checkpoint} is no checkpoint: it has no config.json. Name the directory that save_pretrained wrote."
        )
    model = AutoModelForCausalLM.from_pretrained(checkpoint, local_files_only=True, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    return model, tokenizer
