"""Open a LoRA adapter of peft as an untrusted directory and say what it changes in a base checkpoint. Every misfit is
found before any is reported, and before weights are read; every tensor of the adapter is used, or none.
"""

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonvec.errors import CheckpointError, IncompatibleError
from reasonvec.interchange.low_rank import LowRank
from reasonvec.interchange.names import Renaming, renamings
from reasonvec.interchange.ties import OUTPUT_EMBEDDINGS, module_of
from reasonvec.weights.alignment import Misfit, listing
from reasonvec.weights.checkpoint import Checkpoint
from reasonvec.weights.dtypes import FLOATS
from reasonvec.weights.files import check_inside
from reasonvec.weights.hub import locate_directory
from reasonvec.weights.safetensors_header import TensorEntry, read_header
from reasonvec.weights.stores import local_directory

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
"""What peft puts before every name."""

CONV1D_MODELS = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp", "clvp_decoder")
"""The `model_type` of models that transformers builds from Conv1D, whose weight is stored as (inputs, outputs)."""

_PLAIN_INIT = (None, True, False, "gaussian", "eva", "orthogonal")
"""Ways to begin an adapter that leave the base as it is; PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA change it."""

_HARMLESS = frozenset({
    # where it comes from and how it was trained
    "auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode", "peft_version", "peft_type",
    "lora_dropout", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_core",
    "qalora_group_size", "runtime_config",
    # which modules have factors: the tensors themselves say it
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "bias",
    "ensure_weight_tying",
    # read below
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out", "init_lora_weights",
})  # fmt: skip
_MERGE = "Merge it with peft (`model.merge_and_unload().save_pretrained(DIR)`), then extract --tuned DIR."
_WHY_NOT = {
    "use_dora": "DoRA rescales each column by the norm of the sum, which is no fixed difference of weights.",
    "lora_bias": "its lora_B has a bias of its own.",
    "target_parameters": "it adds to bare parameters, such as stacked experts, which checkpoints store otherwise.",
    "layer_replication": "it repeats layers, so the model has others than the base.",
    "trainable_token_indices": "it replaces rows of the embedding.",
    "alora_invocation_tokens": "it works only after certain tokens, which no weight can say.",
    "megatron_config": "its factors are those of Megatron's parallel layers.",
}

_QUANTIFIERS = re.compile(r"[*+{]")
_MOST_QUANTIFIERS = 2
_LONGEST_PATTERN, _LONGEST_NAME = 300, 256
"""Bounds that keep matching, which takes time with the power of the quantifiers, from taking for ever."""


@dataclass(frozen=True)
class LoraAdapter:
    """An adapter whose header and configuration have been checked; `open_adapter` makes them."""

    checkpoint: Checkpoint
    """Its tensors and small files."""
    low_rank: Mapping[str, LowRank]
    """Module name, as in the model that it was trained on -> its factors, not yet turned (`transposed` is False)."""
    replaced: Mapping[str, TensorEntry]
    """Tensor name -> the whole new tensor (modules_to_save, trained biases, embeddings saved along)."""
    fan_in_fan_out: bool
    ties: bool
    """Whether it was trained with the output embedding kept equal to the input embedding (ensure_weight_tying)."""


@dataclass(frozen=True)
class TensorChange:
    """What becomes of one tensor of the base: `replaced` (or itself) plus the product."""

    low_rank: LowRank | None = None
    replaced: TensorEntry | None = None


def open_adapter(location: str | Path, *, offline: bool = False, follow_links: bool = False) -> LoraAdapter:
    """Read and check configuration and header of a peft LoRA adapter: a directory, or `owner/name` on the Hub.

    Raises CheckpointError for a directory that is none, a pickled one, another kind than LoRA, a variant that is not a
    fixed difference of weights (DoRA and others), factors that do not belong together or dtypes that are no floats;
    UsageError for an address in a store.
    """
    local_directory(location, "The adapter")
    path, revision = locate_directory(location, offline=offline)
    _check_present(path)
    root = path.resolve()
    check_inside(root / WEIGHTS, root, follow_links)
    entries, _ = read_header(root / WEIGHTS)
    checkpoint = Checkpoint(str(location), root, revision, dict(sorted(entries.items())), follow_links)
    config = _config(checkpoint)
    factors, replaced, odd = _sorted_out(checkpoint)
    low_rank: dict[str, LowRank] = {}
    for module, found in factors.items():
        odd += _pair(module, found, config, low_rank)
    if odd:
        raise CheckpointError(
            f"{root / WEIGHTS} is not understood in {len(odd)} places:\n{listing(odd)}\nHalf an adapter is another "
            f"model than the one that was trained, so it is refused. {_MERGE}"
        )
    if not low_rank and not replaced:
        raise CheckpointError(f"{root / WEIGHTS} holds no tensors; there is nothing to import.")
    ties, turned = bool(config.get("ensure_weight_tying")), bool(config.get("fan_in_fan_out"))
    return LoraAdapter(checkpoint, low_rank, replaced, turned, ties)


def _check_present(path: Path) -> None:
    if not path.is_dir():
        what = "is a file; name the directory that holds it" if path.exists() else "does not exist"
        raise CheckpointError(f"{path} {what}. An adapter is a directory with {CONFIG} and {WEIGHTS}, as peft writes "
                              f"it, or an `owner/name` on the Hub.")  # fmt: skip
    if not os.path.lexists(path / WEIGHTS):
        if (path / "adapter_model.bin").exists():
            raise CheckpointError(
                f"{path} holds a pickled adapter (adapter_model.bin) and no {WEIGHTS}. Opening a pickle can run any "
                f"program, so reasonvec never does. If you trust its origin, load it with peft and save it again: "
                f"`model.save_pretrained(DIR)` writes safetensors."
            )
        what = "is a whole checkpoint: use `reasonvec extract`" if (path / "config.json").exists() else "is no adapter"
        raise CheckpointError(f"{path} has no {WEIGHTS}, so it {what}.")


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    """adapter_config.json, once it is sure that the product is all that it means."""
    config, file = checkpoint.json(CONFIG), checkpoint.path / CONFIG
    if not isinstance(config, dict):
        raise CheckpointError(f"{file} is missing or no JSON object. It says the scaling of the adapter; copy it too.")
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{file} is of peft_type {config.get('peft_type')!r:.80}; only LORA is a fixed "
                              f"difference of weights that can be read from its tensors. {_MERGE}")  # fmt: skip
    wrong = [f"{field} is set: {_WHY_NOT.get(field, 'this version does not know what it means for the weights.')}"
             for field, value in sorted(config.items()) if field not in _HARMLESS and value]  # fmt: skip
    if config.get("init_lora_weights") not in _PLAIN_INIT:
        wrong.append(
            f"init_lora_weights is {config['init_lora_weights']!r:.80}: the base was changed when the adapter was "
            f"begun, so its factors are no difference to the base as it is on disk. (peft converts such an adapter "
            f"when it is saved with path_initial_model_for_weight_conversion.)"
        )
    wrong += _wrong_numbers(config)
    if wrong:
        raise CheckpointError(f"{file} describes more than scaling * B @ A:\n  " + "\n  ".join(wrong) + f"\n{_MERGE}")
    return config


def _wrong_numbers(config: Mapping[str, Any]) -> list[str]:
    """What is said of a rank or lora_alpha that is no positive number or cannot be matched safely."""
    numbers = {"r": config.get("r"), "lora_alpha": config.get("lora_alpha")}
    wrong = []
    for field in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(field) or {}
        if not isinstance(patterns, dict):
            return [f"{field} is no object."]
        numbers |= {f"{field}[{pattern!r:.80}]": value for pattern, value in patterns.items()}
        wrong += [f"{field} has the pattern {p!r:.80}, which {why}" for p in patterns if (why := _unsafe(p))]
    for name, value in numbers.items():
        whole = name.startswith("r")
        if not isinstance(value, int if whole else (int, float)) or isinstance(value, bool) or not 0 < value < 1e9:
            wrong.append(f"{name} is {value!r:.80}, not a positive {'count' if whole else 'number'}.")
    return wrong


def _unsafe(pattern: str) -> str | None:
    """Why a pattern of module names could take for ever to match, or is none; peft's own are names or short globs."""
    if len(pattern) > _LONGEST_PATTERN or len(_QUANTIFIERS.findall(pattern)) > _MOST_QUANTIFIERS:
        return "is longer or repeats more than names of modules call for."
    if re.search(r"\)[*+{?]", pattern):
        return "repeats a group, which can take for ever to match."
    try:
        re.compile(pattern)
    except re.error as error:
        return f"is no regular expression: {error}."
    return None


_FACTORS = ("lora_A.weight", "lora_B.weight", "lora_embedding_A", "lora_embedding_B")


def _sorted_out(
    checkpoint: Checkpoint,
) -> tuple[dict[str, dict[str, TensorEntry]], dict[str, TensorEntry], list[Misfit]]:
    """The factors by module, the tensors that are replaced whole by name, and what is neither."""
    factors: dict[str, dict[str, TensorEntry]] = {}
    replaced: dict[str, TensorEntry] = {}
    odd: list[Misfit] = []
    for full, entry in checkpoint.tensors.items():
        name = full.removeprefix(PREFIX)
        kind = next((kind for kind in _FACTORS if name.endswith(f".{kind}")), None)
        if not full.startswith(PREFIX):
            odd.append(Misfit(full, "name", f"does not begin with {PREFIX}, as peft writes names"))
        elif len(full) > _LONGEST_NAME:
            odd.append(Misfit(full[:40] + " ...", "name", f"longer than {_LONGEST_NAME} letters, as no module's is"))
        elif entry.dtype not in FLOATS:
            odd.append(Misfit(full, "dtype", f"dtype {entry.dtype}; only F32, BF16 and F16 are computed with"))
        elif kind:
            factors.setdefault(name.removesuffix(f".{kind}"), {})[kind] = entry
        elif "lora_" in name or "trainable_tokens" in name:
            odd.append(Misfit(full, "name", "belongs to a variant of LoRA that is no product of two matrices"))
        else:
            replaced[name.replace(".base_layer.", ".").replace(".modules_to_save.", ".")] = entry
    return factors, replaced, odd


def _pair(
    module: str, found: Mapping[str, TensorEntry], config: Mapping[str, Any], low_rank: dict[str, LowRank]
) -> list[Misfit]:
    """Put the two factors of a module together in `low_rank`, or say why they do not fit one another."""
    kinds = _FACTORS[:2] if "lora_A.weight" in found or "lora_B.weight" in found else _FACTORS[2:]
    missing = [kind for kind in kinds if kind not in found]
    if missing or len(found) > 2:
        what = f"{missing[0]} is missing" if missing else "has factors of a matrix and of an embedding"
        return [Misfit(module, "factors", what)]
    a, b = (found[kind] for kind in kinds)
    rank = _of_module(config.get("rank_pattern"), module, config["r"])
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != rank or b.shape[1] != rank:
        expected = f"({rank}, inputs) and (outputs, {rank})"
        return [Misfit(module, "shape", f"factors of shape {a.shape} and {b.shape}, expected {expected}")]
    alpha = _of_module(config.get("alpha_pattern"), module, config["lora_alpha"])
    scaling = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank  # rsLoRA: arXiv:2312.03732
    low_rank[module] = LowRank(a, b, scaling, transposed=False)
    return []


def _of_module(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """The value of the first pattern that matches the end of a module's name, as peft's `get_pattern_key` does."""
    return next((value for p, value in (patterns or {}).items() if re.match(rf"(.*\.)?({p})$", module)), default)


def changes(
    adapter: LoraAdapter, base: Checkpoint, tied_to: Callable[[str], str | None]
) -> dict[str, dict[str, TensorChange]]:
    """What becomes of the tensors of `base`: name of the stored tensor -> name in the model -> change.

    Two names stand under one tensor where the model ties them: `tied_to` gives, for a name that is not stored or a
    copy, the stored tensor that it is one with. Raises IncompatibleError listing every misfit.
    """
    wanted = [*(f"{module}.weight" for module in adapter.low_rank), *adapter.replaced]
    renaming = _renaming(wanted, base)
    found: dict[str, dict[str, TensorChange]] = {}
    misfits: list[Misfit] = []
    for name in sorted(set(wanted)):
        ours = renaming.to_ours(name) or name
        low_rank, replaced = adapter.low_rank.get(name.removesuffix(".weight")), adapter.replaced.get(name)
        stored = tied_to(ours) or ours
        entry = base.tensors.get(stored)
        if entry is None:
            misfits.append(Misfit(name, "missing", "in the adapter, missing in the base"))
        elif entry.dtype not in FLOATS:
            misfits.append(Misfit(name, "dtype", f"dtype {entry.dtype} in the base, which cannot be added to; give the "
                                                 f"base before it was quantised"))  # fmt: skip
        elif replaced and replaced.shape != entry.shape:
            misfits.append(Misfit(name, "shape", f"shape {replaced.shape} in the adapter, {entry.shape} in the base"))
        else:
            turned, wrong = _turned(name, low_rank, entry, adapter, base)
            misfits += wrong
            found.setdefault(stored, {})[ours] = TensorChange(turned, replaced)
    if misfits:
        raise IncompatibleError(
            f"The adapter {adapter.checkpoint.location} does not fit the base {base.location}: {len(misfits)} of "
            f"{len(set(wanted))} tensors differ:\n{listing(misfits)}\nPart of an adapter makes a model that nobody "
            f"trained. Use the base that it was trained on (adapter_config.json names it: base_model_name_or_path)."
        )
    return found


def _renaming(wanted: list[str], base: Checkpoint) -> Renaming:
    """The prefix by which the adapter's names differ from the base's; none where no single one maps them all."""
    for renaming in renamings(wanted, base.tensors):
        mapped = [renaming.to_ours(name) for name in wanted]
        # the output embedding need not be stored where it is tied, so it does not decide
        deciding = [name for name in mapped if name is None or module_of(name) not in OUTPUT_EMBEDDINGS]
        if deciding and all(name in base.tensors for name in deciding):
            return renaming
    return Renaming()


def _turned(
    name: str, low_rank: LowRank | None, entry: TensorEntry, adapter: LoraAdapter, base: Checkpoint
) -> tuple[LowRank | None, list[Misfit]]:
    """The product the way round in which the base stores the weight."""
    if low_rank is None:
        return None, []
    as_is = low_rank
    turned = LowRank(low_rank.a, low_rank.b, low_rank.scaling, transposed=True)
    if low_rank.a.name.endswith("lora_embedding_A"):
        fitting = [turned] if turned.shape == entry.shape else []
    else:
        fitting = [candidate for candidate in (as_is, turned) if candidate.shape == entry.shape]
    if not fitting:
        return None, [Misfit(name, "shape", f"the factors make {as_is.shape}, the base has {entry.shape}")]
    if len(fitting) == 1:
        return fitting[0], []
    # a square weight looks alike both ways round
    has_conv1d = base.config.get("model_type") in CONV1D_MODELS
    conv1d = has_conv1d and module_of(name) not in OUTPUT_EMBEDDINGS
    if adapter.fan_in_fan_out and not has_conv1d:
        return None, [Misfit(name, "shape", "a square weight with fan_in_fan_out, in a model whose type does not say "
                                            "which way round it is stored")]  # fmt: skip
    return (turned if conv1d else as_is), []
