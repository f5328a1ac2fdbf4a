"""Whether a target descends from where the donors do, told from a sample of its matrices.

Training moves the weights of a model little against their size and hardly turns them: the direction of all parameters
stays with a base model through fine-tuning, reinforcement learning and even continued pre-training (HuRef, Zeng et al.
2023, arXiv:2312.04828), while models that were initialised apart are nearly orthogonal. Nothing here compares what
models do: one whose neurons were permuted computes the same, is a stranger to the arithmetic, and is called that.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from reasonvec.errors import VectorError
from reasonvec.weights.checkpoint import Checkpoint, TensorReader, layer_of, tensor_reader
from reasonvec.weights.dtypes import FLOATS
from reasonvec.weights.extraction import sample
from reasonvec.weights.findings import Finding
from reasonvec.weights.safetensors_header import TensorEntry, read_header
from reasonvec.weights.tensors import read_run
from reasonvec.weights.vector import SAMPLE, Vector

Verdict = Literal["same lineage", "probably not", "unrelated"]

SAME_COSINE, SAME_DISTANCE = 0.9, 0.5
"""The same lineage: the target points where the base donor does and lies within half its norm. A move by a tenth of the
norm, more than fine-tuning makes, leaves a cosine of 0.995; 0.9 is a move by 0.45 of the norm at equal norms, room for
long continued pre-training. The bound on the distance catches weights that were scaled, which the cosine cannot see."""

UNRELATED_COSINE = 0.2
"""Unrelated: no more alike than chance allows. Independent matrices have cosine 0 with a standard deviation of one over
the square root of the number of sampled entries: 0.03 for a single tensor, less for a layer or a model; 0.2 is more
than six of them. In between, as at equal parts of the old weights and of something new (cosine 0.71), the two share an
ancestor at most remotely, and a difference cannot be expected to mean the same there."""

OFF_CENTRE = 0.5
"""A matrix whose mean is more than this part of its root mean square is left out: it is a scale around one or a table
made by a formula (a norm per head, the decay rates of a state-space model), alike in every model of its family."""


@dataclass(frozen=True)
class Distance:
    """How far the target is from the base donor, over some of their matrices."""

    relative: float | None
    """|target - base| / |base|; None where the base is zero."""
    cosine: float | None
    """None where one of the two is zero."""
    entries: int
    """Sampled weights that this rests on."""

    @property
    def verdict(self) -> Verdict | None:
        """What the two numbers say about descent; None where there is nothing to tell from."""
        if self.relative is None or self.cosine is None:
            return None
        if self.cosine >= SAME_COSINE and self.relative <= SAME_DISTANCE:
            return "same lineage"
        return "unrelated" if self.cosine < UNRELATED_COSINE else "probably not"

    def to_json(self) -> dict[str, Any]:
        """As `check --json` prints it."""
        return {"relative_distance": self.relative, "cosine": self.cosine, "entries": self.entries,
                "verdict": self.verdict}  # fmt: skip


@dataclass(frozen=True)
class Lineage:
    """The distance of a target from the base donor, overall and by layer."""

    overall: Distance
    layers: Mapping[str, Distance]
    """By layer number, "other" for matrices outside the layers."""
    tensors: int
    """Matrices that were compared."""
    left_out: int
    """Matrices of the vector that were not: the target lacks them, has another shape, or they are off centre."""
    not_finite: tuple[str, ...]
    """Tensors of the target in whose sample a NaN or an infinity was met."""

    def to_json(self) -> dict[str, Any]:
        """As `check --json` prints it."""
        return {
            **self.overall.to_json(), "tensors": self.tensors, "left_out": self.left_out,
            "layers": {layer: distance.to_json() for layer, distance in self.layers.items()},
            "not_finite": list(self.not_finite),
        }  # fmt: skip


def measure_lineage(vector: Vector, target: Checkpoint) -> Lineage | None:
    """Compare the target with the sample of the base donor that the vector keeps; None if it keeps none.

    Only matrices count, each by its number of entries: norms and biases are alike in any two models. Raises VectorError
    for a sample that is damaged.
    """
    path = vector.path / SAMPLE
    if not path.is_file():
        return None
    vector.check_file(SAMPLE.as_posix())
    entries, _ = read_header(path)
    sums: dict[str, np.ndarray[Any, Any]] = {}
    used, left_out, not_finite = 0, 0, []
    with tensor_reader() as reader:
        for name, delta in vector.deltas.items():
            if len(delta.shape) < 2 or not delta.size:
                continue
            base = _base_sample(name, entries, reader, vector)
            found = target.tensors.get(name)
            if not _fits(found, delta.shape) or abs(base.mean()) > OFF_CENTRE * math.sqrt(float((base**2).mean())):
                left_out += 1
                continue
            with np.errstate(invalid="ignore"):  # a signalling NaN; it is counted below
                theirs = sample(target, name, reader).astype(np.float64)
            finite = np.isfinite(theirs)
            if not finite.all():
                not_finite.append(name)
            products = _products(base[finite], theirs[finite]) * (delta.size / max(1, finite.sum()))
            layer = layer_of(name)
            for group in ("all", "other" if layer is None else str(layer)):
                total = sums.setdefault(group, np.zeros(4))
                total += [*products, finite.sum()]
            used += 1
    if not used:
        return None
    overall = _distance(sums.pop("all"))
    order = sorted(sums, key=lambda group: (not group.isdigit(), int(group) if group.isdigit() else 0))
    return Lineage(overall, {group: _distance(sums[group]) for group in order}, used, left_out, tuple(not_finite))


def _base_sample(name: str, entries: Mapping[str, TensorEntry], reader: TensorReader, vector: Vector) -> Any:
    if name not in entries or entries[name].dtype not in FLOATS or not entries[name].size:
        raise VectorError(
            f"{vector.path / SAMPLE} holds no sample of {name!r}, which the vector changes. The vector is damaged; "
            f"extract it again."
        )
    return read_run(entries[name], 0, entries[name].size, reader).astype(np.float64)


def _fits(entry: TensorEntry | None, shape: tuple[int, ...]) -> bool:
    return entry is not None and entry.shape == shape and entry.dtype in FLOATS


def _products(base: Any, target: Any) -> Any:
    """<b, b>, <t, t>, <b, t>."""
    return np.array([base @ base, target @ target, base @ target])


def _distance(sums: Any) -> Distance:
    bb, tt, bt, count = (float(value) for value in sums)
    relative = math.sqrt(max(0.0, tt - 2 * bt + bb) / bb) if bb > 0 else None
    cosine = max(-1.0, min(1.0, bt / math.sqrt(bb * tt))) if bb > 0 and tt > 0 else None
    return Distance(relative, cosine, int(count))


def lineage_findings(vector: Vector, lineage: Lineage | None) -> list[Finding]:
    """What the distances mean, in words. Never blocking: the sum is defined for strangers too."""
    if lineage is None or lineage.overall.verdict is None:
        reason = (
            "The vector keeps no sample of the base donor's weights."
            if not (vector.path / SAMPLE).is_file()
            else "The target has none of the vector's matrices in their shape."
        )
        return [Finding("note", "The lineage could not be told", reason, "Know yourself where the target comes from.")]
    findings = [_verdict_finding(lineage)]
    if lineage.not_finite:
        findings.append(
            Finding(
                "warning",
                "The target holds NaN or infinity",
                f"Met in the sample of {len(lineage.not_finite)} tensors, first {lineage.not_finite[0]}.",
                "The target is broken; `apply` will stop there. Use another one, or leave the tensor out with --skip.",
            )
        )
    return findings


def _verdict_finding(lineage: Lineage) -> Finding:
    overall = lineage.overall
    evidence = (
        f"The target lies {overall.relative:.1%} of the base donor's norm away from it, at cosine "
        f"{overall.cosine:.3f}, over {overall.entries} sampled weights of {lineage.tensors} matrices."
    )
    odd = [
        f"{layer} ({distance.relative:.1%}, {distance.cosine:.3f})"
        for layer, distance in lineage.layers.items()
        if distance.verdict not in (None, overall.verdict)
    ]
    if odd:
        evidence += f" These layers say otherwise: {', '.join(odd[:6])}{f' and {len(odd) - 6} more' * (len(odd) > 6)}."
    if overall.verdict == "same lineage":
        return Finding(
            "warning" if odd else "note",
            "Same lineage",
            evidence,
            "Look at those layers: they were replaced or trained apart. Leave them out with --skip if in doubt."
            if odd
            else "The target descends from where the donors do; the vector has its meaning there.",
        )
    if overall.verdict == "probably not":
        return Finding(
            "warning",
            "Probably not of the donors' lineage",
            evidence,
            "The target shares at most a remote ancestor with the donors, and a direction in weights means little so "
            "far away. Nothing forbids the sum; hold it against a random vector of the same norm.",
        )
    return Finding(
        "warning",
        "Unrelated to the donors",
        evidence,
        "The target was initialised apart, or its neurons stand in another order, so the vector should act as "
        "noise. The sum is well defined, and a control needs just this; for a better model use a target of the donors' "
        "lineage.",
    )
