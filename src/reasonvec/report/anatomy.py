"""What is in a vector: `reasonvec inspect --json` summarised for the page. Tolerates what the document leaves out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any

_KIND_ORDER = ("embedding", "q", "k", "v", "o", "gate", "up", "down", "norm", "other")
_OUTSIDE = "outside layers"


@dataclass(frozen=True)
class HeatMap:
    """Relative norms, one row a layer, one column a module kind; None where a layer has no such module."""

    layers: tuple[str, ...]
    kinds: tuple[str, ...]
    relative_norms: tuple[tuple[float | None, ...], ...]

    def cells(self) -> Iterator[tuple[str, str, float]]:
        """Every layer, kind and relative norm that exists."""
        for layer, row in zip(self.layers, self.relative_norms, strict=True):
            for kind, value in zip(self.kinds, row, strict=True):
                if value is not None:
                    yield layer, kind, value


@dataclass(frozen=True)
class StepHistogram:
    """Percent of all weights by the number of representable steps they moved; `bins` are labels such as ``3-4``."""

    bins: tuple[str, ...]
    shares: tuple[float, ...]


def heat_map(vector: Mapping[str, Any]) -> HeatMap | None:
    """Pool the tensors of one layer and kind into one relative norm; None if the document holds no usable tensor.

    With several tensors in a cell (q's weight and bias) the norms add in squares: |v| = sqrt(Σ|v_i|²), and so do the
    weights' norms, recovered as |w_i| = |v_i| / relative norm. A tensor that did not change at all says nothing of
    its weights' norm and is left out of the pool.
    """
    squares: dict[tuple[int | None, str], tuple[float, float]] = {}
    for tensor in vector.get("tensors") or ():
        norm, relative = tensor.get("norm"), tensor.get("relative_norm")
        if not _is_number(norm) or not _is_number(relative):
            continue
        cell = (tensor.get("layer"), str(tensor.get("kind") or "other"))
        changed, weights = squares.get(cell, (0.0, 0.0))
        squares[cell] = (changed + norm**2, weights + (norm / relative) ** 2 if relative else weights)
    if not squares:
        return None
    layers = sorted({layer for layer, _ in squares}, key=lambda layer: (layer is not None, layer or 0))
    kinds = sorted({kind for _, kind in squares}, key=_kind_rank)
    rows = tuple(tuple(_ratio(squares.get((layer, kind))) for kind in kinds) for layer in layers)
    names = tuple(_OUTSIDE if layer is None else f"layer {layer}" for layer in layers)
    return HeatMap(layers=names, kinds=tuple(kinds), relative_norms=rows)


def step_histogram(vector: Mapping[str, Any]) -> StepHistogram | None:
    """Add up the tensors' histograms, bins ascending; None if there are none."""
    counts: dict[str, int] = {}
    for tensor in vector.get("tensors") or ():
        steps = tensor.get("steps") or {}
        for label, number in zip(steps.get("bins") or (), steps.get("counts") or (), strict=True):
            counts[str(label)] = counts.get(str(label), 0) + int(number)
    total = sum(counts.values())
    if not total:
        return None
    bins = sorted(counts, key=_first_number)
    return StepHistogram(bins=tuple(bins), shares=tuple(100 * counts[label] / total for label in bins))


def energies(vector: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, dict[str, float]]]:
    """Mean share of energy in the top singular values by module kind: the ranks, and kind -> rank -> share in 0..1."""
    found: dict[str, dict[str, list[float]]] = {}
    for tensor in vector.get("tensors") or ():
        for rank, share in (tensor.get("energy") or {}).items():
            if _is_number(share):
                found.setdefault(str(tensor.get("kind") or "other"), {}).setdefault(str(rank), []).append(share)
    ranks = sorted({rank for shares in found.values() for rank in shares}, key=_first_number)
    means = {kind: {rank: sum(s) / len(s) for rank, s in shares.items()} for kind, shares in found.items()}
    return tuple(ranks), means


def module_rows(vector: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The document's entries by module kind, in the order in which a signal passes them."""
    return sorted(vector.get("kinds") or (), key=lambda entry: _kind_rank(str(entry.get("kind"))))


def layer_rows(vector: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The document's entries by layer, first layer first and what lies outside the layers last."""
    return sorted(vector.get("layers") or (), key=lambda e: (e.get("layer") is None, e.get("layer") or 0))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and isfinite(value)


def _ratio(squares: tuple[float, float] | None) -> float | None:
    if squares is None:
        return None
    changed, weights = squares
    return sqrt(changed / weights) if weights else 0.0


def _kind_rank(kind: str) -> tuple[int, str]:
    return (_KIND_ORDER.index(kind) if kind in _KIND_ORDER else len(_KIND_ORDER), kind)


def _first_number(label: str) -> tuple[float, str]:
    digits = "".join(character if character.isdigit() else " " for character in label).split()
    return (float(digits[0]) if digits else float("inf"), label)
