"""The weights of a running trainer as an ordinary checkpoint: gathered where they are spread, merged where they are an
adapter, rounded to the donors' dtype.
"""

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import torch

from reasonvec.training.checkpoints import load_checkpoint, save_checkpoint
from reasonvec.training.trainers import raise_if_full

ADAPTER = "adapter"


def save_weights(trainer: Any, tokenizer: Any, *, out: Path, dtype: torch.dtype, step: int, base: Path | None) -> float:
    """Write the model as it is after `step` to the directory `out`; called on every process. Returns how far rounding
    to `dtype` moved the weights, a norm; 0 on all processes but the main one.

    With `base` the trainer trains an adapter of it: the sum is written, and the adapter itself in `out`/adapter. Raises
    OutputError for a full disk; what was saved before is left as it was.
    """
    moved = 0.0
    accelerator = trainer.accelerator
    try:
        if base is not None:
            moved = _save_merged(trainer, tokenizer, out, dtype, base)
        else:
            weights = _gathered(trainer)
            if accelerator.is_main_process:
                model = accelerator.unwrap_model(trainer.model)
                save_checkpoint(model, tokenizer, out=out, dtype=dtype, weights=weights)
                moved = _rounding_norm(weights or dict(model.named_parameters()), dtype)
    except Exception as error:
        raise_if_full(error, out, step)
        raise
    accelerator.wait_for_everyone()
    return moved


def _rounding_norm(weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> float:
    """Norm of the weights rounded to `dtype` minus the weights, of exact float32 differences summed in float64."""
    if all(tensor.dtype == dtype for tensor in weights.values()):
        return 0.0
    squares = ((tensor.detach().to(dtype).float() - tensor.detach().float()).double().square().sum()
               for tensor in weights.values())  # fmt: skip
    return math.sqrt(sum(float(square) for square in squares))


def _gathered(trainer: Any) -> Mapping[str, torch.Tensor] | None:
    """All weights, on the main process; None where the model there is whole anyway."""
    if trainer.is_fsdp_enabled:
        return trainer.accelerator.get_state_dict(trainer.model)  # type: ignore[no-any-return]
    if trainer.is_deepspeed_enabled:
        return trainer.accelerator.get_state_dict(trainer.deepspeed)  # type: ignore[no-any-return]
    return None


def _save_merged(trainer: Any, tokenizer: Any, out: Path, dtype: torch.dtype, base: Path) -> float:
    """The base is read again and merged on the CPU: merged and taken apart in place, the weights that are trained
    would pick up rounding."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".adapter-", dir=out.parent) as scratch:
        adapter = Path(scratch) / ADAPTER
        trainer.save_model(str(adapter))
        if not trainer.accelerator.is_main_process:
            return 0.0
        model, _ = load_checkpoint(base, dtype=torch.float32)
        merged = peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        save_checkpoint(merged, tokenizer, out=out, dtype=dtype)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (out / ADAPTER).mkdir(exist_ok=True)
            (adapter / name).replace(out / ADAPTER / name)
        return _rounding_norm(dict(merged.named_parameters()), dtype)
