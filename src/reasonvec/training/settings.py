"""TRL's own fields from a YAML file and `--set field=value`, checked by name, type and meaning. Nothing is renamed.

What a run decides itself, such as where it writes, is refused here with the reason.
"""

import dataclasses
import difflib
import enum
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import peft
import trl
import yaml

from reasonvec.errors import CheckpointError, UsageError
from reasonvec.weights.files import read_small

Kind = Literal["sft", "grpo"]
CONFIGS: Mapping[Kind, Any] = {"sft": trl.SFTConfig, "grpo": trl.GRPOConfig}

_OUTPUT = "a run keeps its files where --out says"
_HUB = "nothing is uploaded by a training; upload the finished donor with `hf upload`"
_DATA = "data, prompts and answers come from --data and one prompt builder"
_TOKENS = "a donor keeps the tokenizer of its base, or vectors would not fit"
_PLAN = "what is saved, logged and validated when is decided by the run; see --trajectory, save_steps and logging_steps"
RESERVED: Mapping[str, str] = {
    **dict.fromkeys(("output_dir", "save_on_each_node"), _OUTPUT),
    **dict.fromkeys((
        "push_to_hub", "hub_model_id", "hub_strategy", "hub_token", "hub_private_repo", "hub_always_push",
        "hub_revision", "log_completions_hub_repo", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id",
    ), _HUB),
    **dict.fromkeys((
        "dataset_text_field", "dataset_kwargs", "completion_only_loss", "assistant_only_loss", "remove_unused_columns",
        "label_names",
    ), _DATA),
    **dict.fromkeys(("chat_template_path", "eos_token", "pad_token", "chat_template_kwargs"), _TOKENS),
    **dict.fromkeys((
        "save_strategy", "save_total_limit", "save_only_model", "logging_strategy", "eval_strategy", "eval_steps",
        "eval_on_start", "eval_delay", "do_train", "do_eval", "do_predict", "load_best_model_at_end",
        "metric_for_best_model", "greater_is_better", "disable_tqdm", "prediction_loss_only", "ignore_data_skip",
        "restore_callback_states_from_checkpoint", "batch_eval_metrics", "include_for_metrics",
    ), _PLAN),
    "resume_from_checkpoint": "--resume finds the last whole checkpoint of the run in --out",
    "logging_nan_inf_filter": "a loss that is not a number stops the run; hidden, it would spoil the donor",
    "trust_remote_code": "no code from a checkpoint is run",
    "auto_find_batch_size": "a batch size found by trial could not be resumed to the same losses",
    "sync_ref_model": "the reference of the KL term is the model that training starts from",
}  # fmt: skip
"""Field -> why it cannot be set."""
_MODEL_FIELDS = ("dtype", "attn_implementation")


@dataclass(frozen=True)
class Settings:
    """What one training is asked to do, as far as TRL and peft are concerned."""

    kind: Kind
    fields: Mapping[str, Any]
    """Fields of TRL's config class that were set, by name."""
    lora: Mapping[str, Any] | None
    """Fields of peft's LoraConfig; None for full training."""
    source: str | None
    """The file or the preset that they came from."""

    def to_json(self) -> dict[str, Any]:
        """As training.json keeps them."""
        lora = None if self.lora is None else dict(self.lora)
        return {"config": self.source, "fields": dict(self.fields), "lora": lora}


def read_settings(kind: Kind, *, config: str | None = None, changes: Sequence[str] = ()) -> Settings:
    """The fields of a YAML file or preset, then of `changes`, each `field=value`, which win.

    The key `lora` holds fields of peft's LoraConfig; `--set lora.r=8` sets one of them. Raises UsageError that lists
    every field that is unknown, of the wrong type or reserved.
    """
    found: dict[str, Any] = dict(_read_yaml(kind, config)) if config else {}
    for change in changes:
        _apply(found, change)
    lora = found.pop("lora", None)
    problems = _problems(CONFIGS[kind], found, RESERVED, CONFIGS[kind].__name__)
    if lora is not None and not isinstance(lora, dict):
        problems.append(f"lora is {lora!r}; it holds fields of peft's LoraConfig, such as r and target_modules")
    elif lora is not None:
        problems += _problems(peft.LoraConfig, lora, _LORA_RESERVED, "LoraConfig", prefix="lora.")
    problems += _model_problems(found.get("model_init_kwargs"))
    if problems:
        where = f" of {config}" if config else ""
        raise UsageError(f"{len(problems)} setting{'s' * (len(problems) > 1)}{where} cannot be used: "
                         + "; ".join(problems) + ".")  # fmt: skip
    fields = {name: _converted(value, _hints(CONFIGS[kind])[name]) for name, value in found.items()}
    return Settings(kind, fields, lora, config)


_LORA_RESERVED = {
    "task_type": "it is CAUSAL_LM",
    "base_model_name_or_path": "it is --model",
    "inference_mode": "a training trains",
    "init_lora_weights": "an adapter whose start is not zero is not the difference to its base",
}


def preset_names() -> list[str]:
    """The presets that come with the package, such as grpo-1.5b-1gpu."""
    return sorted(file.name.removesuffix(".yaml") for file in _presets().iterdir() if file.name.endswith(".yaml"))


def _presets() -> Any:
    return files("reasonvec.training") / "presets"


def _read_yaml(kind: Kind, config: str) -> Mapping[str, Any]:
    """The fields of a preset, with or without `sft-` or `grpo-` before it, or of a file, which may hold both trainings'
    under the keys `sft` and `grpo`."""
    names = preset_names() if _presets().is_dir() else []
    name = config if config.startswith(("sft-", "grpo-")) else f"{kind}-{config}"
    if name in names:
        if not name.startswith(f"{kind}-"):
            raise UsageError(f"{config} is a preset of another training; for {kind} there are "
                             f"{', '.join(other for other in names if other.startswith(f'{kind}-'))}.")  # fmt: skip
        text = (_presets() / f"{name}.yaml").read_bytes()
    elif Path(config).suffix in (".yaml", ".yml"):
        try:
            text = read_small(Path(config))
        except CheckpointError as error:
            raise UsageError(str(error)) from None
    else:
        raise UsageError(f"{config!r} is neither a preset nor a .yaml file. Presets are {', '.join(names) or 'none'}.")
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{config} is no YAML: {' '.join(str(error)[:300].split())}.") from None
    if isinstance(content, dict) and content and content.keys() <= CONFIGS.keys():
        content = content.get(kind) or {}
    if not isinstance(content, dict) or not all(isinstance(field, str) for field in content):
        raise UsageError(f"{config} holds no map of fields; a line is `learning_rate: 1.0e-6`.")
    return content


def _apply(found: dict[str, Any], change: str) -> None:
    name, equals, text = change.partition("=")
    if not equals or not name:
        raise UsageError(f"--set takes field=value, not {change!r}.")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UsageError(f"--set {name}: {text[:100]!r} is no YAML value; quote it, or close what is open.") from None
    head, dot, rest = name.partition(".")
    if dot and head in ("lora", "model_init_kwargs"):
        inner = found.get(head) or {}
        if not isinstance(inner, dict):
            raise UsageError(f"--set {name}: {head} is {inner!r} and holds no fields.")
        found[head] = {**inner, rest: value}
    else:
        found[name] = value


def _hints(config: Any) -> Mapping[str, Any]:
    return typing.get_type_hints(config)


def _problems(config: Any, found: Mapping[str, Any], reserved: Mapping[str, str], title: str, *, prefix: str = ""
              ) -> list[str]:  # fmt: skip
    """What is wrong with each of the fields, in words."""
    hints = _hints(config)
    known = [field.name for field in dataclasses.fields(config) if field.init]
    problems = []
    for name, value in found.items():
        if name in reserved:
            problems.append(f"{prefix}{name} is not yours to set: {reserved[name]}")
        elif name not in known:
            near = difflib.get_close_matches(name, [n for n in known if n not in reserved], n=3, cutoff=0.5)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            problems.append(f"{title} has no field {name!r}{hint}")
        elif not _fits(value, hints[name]):
            problems.append(f"{prefix}{name} is {value!r}, a {type(value).__name__}; it takes {_said(hints[name])}")
    return problems


def _model_problems(given: Any) -> list[str]:
    if given is None:
        return []
    if not isinstance(given, dict):
        return [f"model_init_kwargs is {given!r}; it holds {' and '.join(_MODEL_FIELDS)}"]
    return [
        f"model_init_kwargs.{name} is not passed on; those that are: {', '.join(_MODEL_FIELDS)}"
        for name in given if name not in _MODEL_FIELDS
    ]  # fmt: skip


def _fits(value: Any, hint: Any) -> bool:
    """Whether a YAML value is of an annotated type; what is annotated in ways that YAML has no values for fits not."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is list or hint is list:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value if arguments)
    if origin is set:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if origin is dict or hint is dict:
        return isinstance(value, dict)
    if hint is None or hint is types.NoneType:
        return value is None
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return value in [member.value for member in hint]
    if hint is float:
        return not isinstance(value, bool) and (isinstance(value, int | float) or _is_number(value))
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(hint, type) and isinstance(value, hint)


def _is_number(value: Any) -> bool:
    """YAML 1.1 reads 1e-6, without a point, as text."""
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True


def _converted(value: Any, hint: Any) -> Any:
    """A number that YAML took for text as a number, where only a number was asked for."""
    arguments = typing.get_args(hint) or (hint,)
    if isinstance(value, str) and float in arguments and str not in arguments:
        return float(value)
    return value


def _said(hint: Any) -> str:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_said(argument) for argument in arguments))
    if hint is types.NoneType:
        return "nothing"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return f"one of {', '.join(str(member.value) for member in hint)}"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(hint, str(hint))
