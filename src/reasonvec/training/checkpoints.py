"""Writing a trained model as an ordinary checkpoint, whole or not at all. Reading one is transformers' own business."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from reasonvec.errors import CheckpointError, OutputError


def refuse_existing(out: Path) -> None:
    """Fail before the expensive part where `out` exists: nothing is overwritten."""
    if out.exists():
        raise OutputError(f"{out} exists already, and training does not overwrite. Remove it or name another --out.")


def save_checkpoint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    out: Path,
    dtype: torch.dtype | None = None,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write model, configuration, tokenizer and chat template to the directory `out`, which must not exist.

    With `dtype` the weights are rounded to it; the model keeps its own. `weights` are taken instead of the model's
    where they had to be gathered from several processes. Everything is written to a temporary sibling that is renamed
    at the end, so a killed run leaves no `out` at all.
    """
    refuse_existing(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".partial", dir=out.parent))
    try:
        if dtype is None and weights is None:
            model.save_pretrained(partial)
        else:
            model.save_pretrained(partial, state_dict=_rounded(weights or model.state_dict(), dtype))
            _declare(partial / "config.json", dtype)
        tokenizer.save_pretrained(partial)
        partial.chmod(0o755)  # mkdtemp makes it private
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def load_checkpoint(
    checkpoint: Path, *, dtype: torch.dtype | Literal["auto"] = "auto", attention: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer of a directory, the model in the dtype it is stored in or in `dtype`; the network is not
    asked, and no code of the directory is run."""
    if not (checkpoint / "config.json").is_file():
        raise CheckpointError(
            f"{checkpoint} is no checkpoint: it has no config.json. Name the directory that save_pretrained wrote."
        )
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    chosen = {"attn_implementation": attention} if attention else {}
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype, use_safetensors=True, **chosen, **options)
    return model, AutoTokenizer.from_pretrained(checkpoint, **options)


def _rounded(weights: Mapping[str, torch.Tensor], dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    """The weights in `dtype`; those that share memory, as tied embeddings do, still share it afterwards."""
    made: dict[tuple[int, torch.Size], torch.Tensor] = {}
    rounded = {}
    for name, tensor in weights.items():
        place = (tensor.data_ptr(), tensor.shape)
        if place not in made:
            made[place] = tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
        rounded[name] = made[place]
    return rounded


def _declare(config: Path, dtype: torch.dtype | None) -> None:
    """Have config.json name the dtype of the weights beside it, not that of the model in memory."""
    if dtype is None:
        return
    document = json.loads(config.read_text(encoding="utf-8"))
    document.pop("torch_dtype", None)
    document["dtype"] = str(dtype).removeprefix("torch.")
    config.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
