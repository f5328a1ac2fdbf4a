"""TRL's config object from checked settings: what a run decides itself, and defaults where TRL's suit no donor."""

from typing import Any

import torch

from reasonvec.errors import UsageError
from reasonvec.training.directory import RunDirectory
from reasonvec.training.settings import CONFIGS, Settings

SAVE_STEPS = 50
"""Steps between two states to resume from, where save_steps does not say; TRL's 500 are more than a GRPO run has."""
_CHECKPOINTING = {"activation_checkpointing", "gradient_checkpointing"}
"""Two names of one thing, of which transformers 6 drops the second."""
_FASTER_SAMPLING = ("use_transformers_continuous_batching", "use_transformers_paged")


def build_config(settings: Settings, directory: RunDirectory) -> Any:
    """The SFTConfig or GRPOConfig of a run in `directory`.

    Raises UsageError with TRL's own words for values that do not go together.
    """
    fields = {name: value for name, value in settings.fields.items() if name not in ("save_steps", "model_init_kwargs")}
    on_cpu = bool(fields.get("use_cpu", not torch.cuda.is_available()))
    ours = {
        "output_dir": str(directory.state),
        "save_strategy": "no",  # a callback asks for checkpoints, where the run can go on from
        "save_total_limit": 2,  # of which one may be half written
        "eval_strategy": "no",
        "logging_strategy": "steps",
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "remove_unused_columns": settings.kind == "sft",
    }
    defaults = {"use_cpu": on_cpu, "logging_steps": 1, "report_to": "none"}
    if on_cpu:
        # mixed precision gains nothing there, and checkpoints of activations only cost time
        defaults |= {"bf16": False, "dataloader_pin_memory": False}
        if not _CHECKPOINTING & fields.keys():
            defaults["activation_checkpointing"] = False
    _check_sampling(settings)
    try:
        return CONFIGS[settings.kind](**{**defaults, **fields, **ours})
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(f"{CONFIGS[settings.kind].__name__} refuses these settings: {' '.join(str(error).split())}"
                         ) from error  # fmt: skip


def save_steps(settings: Settings) -> int:
    """Steps between two states to resume from. Raises UsageError for less than 1."""
    every = int(settings.fields.get("save_steps", SAVE_STEPS))
    if every < 1:
        raise UsageError(f"save_steps is {settings.fields['save_steps']}; it is a number of steps, 1 or more.")
    return every


def master_dtype(settings: Settings) -> torch.dtype:
    """The dtype in which weights are kept during training: float32, unless model_init_kwargs.dtype says otherwise.

    Raises UsageError for a dtype that nothing is trained in.
    """
    name = str((settings.fields.get("model_init_kwargs") or {}).get("dtype", "float32"))
    if name not in ("float32", "bfloat16"):
        raise UsageError(f"model_init_kwargs.dtype is {name!r}; weights are kept in float32, or in bfloat16 at "
                         f"a price that is measured. For float16 arithmetic set fp16.")  # fmt: skip
    return torch_dtype(name)


def torch_dtype(name: str) -> torch.dtype:
    """torch's object for float32, bfloat16 or float16."""
    found: torch.dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    return found


def own_sampler_serves(config: Any, model: Any, tokenizer: Any) -> bool:
    """Whether evaluation's own loop samples as TRL's would: on a CPU, one end token, only a temperature set."""
    ends = model.generation_config.eos_token_id
    one_end = ends is None or (ends if isinstance(ends, list) else [ends]) == [tokenizer.eos_token_id]
    plain = config.top_p == 1.0 and not config.top_k and config.min_p is None and config.repetition_penalty == 1.0
    return bool(
        config.device.type == "cpu" and not config.use_vllm and one_end and plain and config.generation_kwargs is None
        and config.temperature > 0
    )  # fmt: skip


def _check_sampling(settings: Settings) -> None:
    used = [name for name in _FASTER_SAMPLING if settings.fields.get(name)]
    if used:
        raise UsageError(f"{used[0]} cannot be used: TRL rounds the weights themselves to the dtype of sampling, and "
                         f"float32 master weights would be lost. Use use_vllm for faster sampling.")  # fmt: skip
