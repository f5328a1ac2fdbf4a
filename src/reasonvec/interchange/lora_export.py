"""`export lora`: the nearest low-rank adapter to a vector, for peft: target + left @ right at scaling 1. An adapter
holds only what such a product can hold; what it leaves out is said with its norm, and never stored as absolute weights.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from reasonvec.errors import IncompatibleError, UsageError
from reasonvec.interchange.adapter import CONFIG, CONV1D_MODELS, PREFIX, WEIGHTS
from reasonvec.interchange.factors import Factors, factorise
from reasonvec.interchange.ties import INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS, module_of
from reasonvec.weights.alignment import may_tie
from reasonvec.weights.arithmetic import check_seed
from reasonvec.weights.checkpoint import Checkpoint, tensor_reader
from reasonvec.weights.documents import format_document
from reasonvec.weights.hub import is_hub_id, locate_vector
from reasonvec.weights.modules import kind_of
from reasonvec.weights.output import Staging, check_output, staged
from reasonvec.weights.provenance import absolute, check_unchanged, input_identity, tool
from reasonvec.weights.receipt import FORMAT_VERSION, RECEIPT
from reasonvec.weights.safetensors_header import format_header
from reasonvec.weights.sources import StoredDeltas
from reasonvec.weights.stores import local_directory
from reasonvec.weights.vector import Delta, Vector
from reasonvec.weights.vector_writer import file_checksums

FORMAT = "reasonvec.adapter"

Progress = Callable[[int], None]
"""Called with the number of bytes of deltas that were just factorised."""


@dataclass(frozen=True)
class ModuleFit:
    """How well an adapter holds the delta of one module."""

    name: str
    rank: int
    norm: float
    """Of the delta."""
    error: float
    """Norm of delta - left @ right."""

    @property
    def relative_error(self) -> float:
        """Of the norm of the delta; deltas of norm 0 are in no adapter."""
        return self.error / self.norm

    @property
    def energy(self) -> float:
        """The share of the delta's squared norm that the adapter holds."""
        return 1 - self.relative_error**2

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {**vars(self), "relative_error": self.relative_error, "energy": self.energy}


@dataclass(frozen=True)
class LeftOut:
    """A delta that is not in the adapter."""

    name: str
    norm: float
    reason: str

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return dict(vars(self))


@dataclass(frozen=True)
class LoraExport:
    """What `export_lora` made and what it could not hold."""

    out: Path
    rank: int
    modules: tuple[ModuleFit, ...]
    left_out: tuple[LeftOut, ...]
    """Only deltas that are not zero."""
    warnings: tuple[str, ...]

    @property
    def lost_energy(self) -> float:
        """The share of the vector's squared norm that is not in the adapter: errors and what is left out."""
        lost = sum(fit.error**2 for fit in self.modules) + sum(rest.norm**2 for rest in self.left_out)
        return lost / (sum(fit.norm**2 for fit in self.modules) + sum(rest.norm**2 for rest in self.left_out))

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "path": str(self.out), "rank": self.rank, "lost_energy": self.lost_energy,
            "modules": [fit.to_json() for fit in self.modules], "left_out": [rest.to_json() for rest in self.left_out],
            "warnings": list(self.warnings),
        }  # fmt: skip


@dataclass(frozen=True)
class _Module:
    """A delta with the modules that get it: one, or both ends of a tied embedding."""

    delta: Delta
    names: tuple[str, ...]
    rank: int
    turned: bool
    """Whether the weight is stored as (inputs, outputs)."""

    def tensors(self) -> list[tuple[str, tuple[int, int]]]:
        """The names and shapes of its factors in the adapter."""
        inputs, outputs = self.delta.shape if self.turned else reversed(self.delta.shape)
        found = []
        for module in self.names:
            if module_of(module) in _EMBEDDINGS:
                found.append((f"{PREFIX}{module}.lora_embedding_A", (self.rank, self.delta.shape[0])))
                found.append((f"{PREFIX}{module}.lora_embedding_B", (self.delta.shape[1], self.rank)))
            else:
                found.append((f"{PREFIX}{module}.lora_A.weight", (self.rank, inputs)))
                found.append((f"{PREFIX}{module}.lora_B.weight", (outputs, self.rank)))
        return found

    def arrays(self, factors: Factors) -> list[Any]:
        """The factors in the order of `tensors`."""
        found = []
        for module in self.names:
            turned = self.turned or module_of(module) in _EMBEDDINGS
            found += [factors.left.T, factors.right.T] if turned else [factors.right, factors.left]
        return found


_EMBEDDINGS = (*INPUT_EMBEDDINGS, "wpe", "embed_positions", "position_embeddings")


def export_lora(
    vector: str | Path,
    *,
    rank: int,
    out: str | Path,
    target_modules: Sequence[str] = (),
    seed: int = 0,
    resume: bool = False,
    force: bool = False,
    offline: bool = False,
    progress: Progress = lambda nbytes: None,
) -> LoraExport:
    """Write to the new directory `out` a peft adapter of at most `rank` for each matrix of a vector.

    Loaded onto any target it adds the product; at full rank, and if nothing is left out, it is the vector in float32.
    `target_modules` are globs over the names of modules or of their last parts. Factors are found by a randomised
    method that `seed` fixes. Memory: the factors of one matrix.

    Raises UsageError for a rank below 1, a negative seed or one beyond 64 bits, a pattern that matches nothing and an
    `out` in a store, IncompatibleError if no matrix of the vector is left to hold, VectorError for a damaged vector,
    OutputError if `out` cannot be written.
    """
    if rank < 1:
        raise UsageError(f"--rank is {rank}; an adapter has at least rank 1.")
    check_seed(seed)
    out = local_directory(out, "--out")
    opened = locate_vector(vector, offline=offline)
    check_output(out, force=force, inputs=(opened.path,))
    modules, left_out = _plan(opened, rank, tuple(target_modules))
    identity = input_identity([opened])
    options = {"rank": rank, "seed": seed, "target_modules": list(target_modules)}
    plan = {"operation": "export lora", "tool": tool(), "inputs": identity, **options}
    tensors = [(name, "F32", shape) for module in modules for name, shape in module.tensors()]
    header = format_header(tensors, {"format": "pt"})
    needed = len(header) + sum(4 * math.prod(shape) for _, _, shape in tensors)
    with staged(out, plan=plan, needed=needed, resume=resume, force=force) as staging:
        staging.file(WEIGHTS, needed)
        staging.write(WEIGHTS, 0, header)
        _write_factors(opened, modules, staging, len(header), seed, progress)
        staging.complete(WEIGHTS)
        staging.put(CONFIG, _config(opened, modules, rank))
        check_unchanged([opened], identity)
        fits = tuple(ModuleFit(module.names[0], module.rank, *staging.finished[module.names[0]]) for module in modules)
        export = LoraExport(out, rank, fits, left_out, _warnings(modules))
        document = {
            "format": FORMAT, "format_version": FORMAT_VERSION, "tool": tool(), **options,
            "vector": {"location": absolute(opened.location), "revision": opened.revision,
                       "fingerprint": opened.fingerprint},
            **{key: value for key, value in export.to_json().items() if key in ("lost_energy", "modules", "left_out")},
            "files": file_checksums(staging, RECEIPT, without=()),
        }  # fmt: skip
        staging.put(RECEIPT, format_document(document))
    return export


def _plan(vector: Vector, rank: int, patterns: tuple[str, ...]) -> tuple[list[_Module], tuple[LeftOut, ...]]:
    """What the adapter holds, in the order of names, and what it does not."""
    donor = vector.donor()
    modules, left_out, matched = [], [], set()
    for name, delta in vector.deltas.items():
        module = name.removesuffix(".weight")
        hit = {pattern for pattern in patterns if _matches(module, pattern)}
        matched |= hit
        if name in vector.tied or delta.norm == 0:
            continue  # a copy goes with what it copies, and nothing is lost of a zero
        if reason := _cannot_hold(delta) or (None if hit or not patterns else "not among --target-modules"):
            left_out.append(LeftOut(name, delta.norm, reason))
            continue
        turned = donor.config.get("model_type") in CONV1D_MODELS and kind_of(name) != "embedding"
        modules.append(_Module(delta, _ends(module, vector, donor), min(rank, *delta.shape), turned))
    if missed := [pattern for pattern in patterns if pattern not in matched]:
        raise UsageError(f"--target-modules {missed[0]!r} matches none of the {len(vector.deltas)} modules. Patterns "
                         f"match whole names or their last part, as in 'q_proj' or 'model.layers.0.*'.")  # fmt: skip
    if not modules:
        raise IncompatibleError(
            f"{vector.location} has no matrix with a delta that an adapter could hold ({len(left_out)} left out). "
            f"LoRA adds to matrices only; use `reasonvec apply`, which adds all of a vector."
        )
    return modules, tuple(left_out)


def _matches(module: str, pattern: str) -> bool:
    return fnmatchcase(module, pattern) or fnmatchcase(module, f"*.{pattern}")


def _cannot_hold(delta: Delta) -> str | None:
    """Why a delta is not one that LoRA adds to, or None."""
    parts = delta.name.split(".")
    if "experts" in parts:
        return "an expert: transformers holds all experts in one parameter, which is no Linear"
    if len(delta.shape) != 2:
        return "a norm or bias" if len(delta.shape) == 1 else f"{len(delta.shape)} dimensions, no matrix"
    if parts[-1] != "weight":
        return "a bare parameter, no weight of a module"
    if kind_of(delta.name) == "router":
        return "a router, which is no Linear in transformers"
    return None


def _ends(module: str, vector: Vector, donor: Checkpoint) -> tuple[str, ...]:
    """The modules that the delta of one is for: both embeddings where the donors tie them, else itself."""
    copies = sorted(name.removesuffix(".weight") for name, twin in vector.tied.items() if twin == f"{module}.weight")
    if copies or module_of(module) not in INPUT_EMBEDDINGS or not may_tie(donor):
        return (module, *copies)
    known = {module_of(name) for name in (*vector.deltas, *vector.left_out)}
    heads = [str(name) for name in donor.config.get("architectures") or ["ForCausalLM"]]
    if known.intersection(OUTPUT_EMBEDDINGS) or not any(h.endswith(("LM", "LMHeadModel", "Generation")) for h in heads):
        return (module,)
    return module, "embed_out" if module_of(module) == "embed_in" else "lm_head"


def _write_factors(
    vector: Vector, modules: Sequence[_Module], staging: Staging, begin: int, seed: int, progress: Progress
) -> None:
    deltas, position = StoredDeltas(vector), begin
    with tensor_reader() as reader:
        for module in modules:
            nbytes = sum(4 * math.prod(shape) for _, shape in module.tensors())
            if module.names[0] not in staging.finished:
                factors = factorise(deltas, module.delta, module.rank, reader, seed=seed)
                offset = position
                for array in module.arrays(factors):
                    data = np.ascontiguousarray(array)
                    staging.write(WEIGHTS, offset, data.view(np.uint8).data)
                    offset += data.nbytes
                staging.finish(module.names[0], [factors.norm, factors.error], nbytes)
            position += nbytes
            progress(4 * module.delta.size)


def _config(vector: Vector, modules: Sequence[_Module], rank: int) -> bytes:
    """adapter_config.json: names every module in full, and sets lora_alpha to the rank so that the scaling is 1."""
    base = vector.document["donors"]["base"]
    smaller = {name: module.rank for module in modules for name in module.names if module.rank != rank}
    config: Mapping[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base["location"] if is_hub_id(base["location"]) else None,
        "revision": base["revision"] if is_hub_id(base["location"]) else None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": smaller,
        "alpha_pattern": smaller,
        "use_rslora": False,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(module.turned for module in modules),
        "target_modules": sorted(name for module in modules for name in module.names),
        "modules_to_save": None,
        "init_lora_weights": True,
    }
    return (json.dumps(config, indent=2) + "\n").encode()


def _warnings(modules: Sequence[_Module]) -> tuple[str, ...]:
    return tuple(
        f"{' and '.join(module.names)} are one tensor in the donors, so both get the delta. Use the adapter as it is: "
        f"peft's merge would add it to the one tensor twice. For a merged model use `reasonvec apply`."
        for module in modules
        if len(module.names) > 1
    )
