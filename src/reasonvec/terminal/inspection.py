"""What `inspect` shows people: a vector at a glance."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reasonvec.terminal.parts import facts, number, percent, safe, size, table
from reasonvec.weights.analysis import Change, Inspection
from reasonvec.weights.vector import lossy_method

_BAR = 16


def inspection(inspection: Inspection, *, tensors: bool = False) -> RenderableType:
    """A vector at a glance: the whole, its donors, then a row for each layer and each kind of module, and with
    `tensors` for each tensor."""
    parts: list[RenderableType] = [facts(_whole(inspection)), _layers(inspection), _kinds(inspection)]
    if tensors:
        parts.append(_tensors(inspection))
    if sum(inspection.steps):
        parts.append(_steps(inspection.to_json()["steps"]))
    if inspection.relation:
        parts.append(_relation(inspection.relation))
    return Group(*parts)


def _whole(inspection: Inspection) -> list[tuple[str, str]]:
    total = inspection.total
    rows = [("vector", inspection.name)]
    if control := inspection.document.get("control"):
        rows.append(("control", f"{control['kind']}, seed {control['seed']}"))
    if lossy := inspection.document.get("lossy"):
        rows.append(("lossy", f"{lossy_method(lossy)}; {percent(lossy['relative_error'], 2)} of the exact vector's "
                              f"norm away from it"))  # fmt: skip
    for role in ("tuned", "base"):
        donor = inspection.document.get("donors", {}).get(role)
        if donor:
            revision = f"  ({donor['revision'][:12]})" if donor.get("revision") else ""
            rows.append((role, f"{donor['location']}{revision}"))
    rows += [
        ("parameters", f"{total.parameters:,} in {len(inspection.tensors)} tensors, {size(inspection.nbytes)}"),
        ("norm", f"{total.norm:.4g}, {percent(total.relative_norm, 2)} of the weights' norm"),
        ("unchanged", f"{percent(total.unchanged_share)} of the entries"),
    ]
    if inspection.rounding_share:
        rows.append(("rounding", f"up to {percent(inspection.rounding_share)} of the norm: the donors' dtypes differ"))
    return rows


def _layers(inspection: Inspection) -> Table:
    rows = {"outside" if layer is None else str(layer): change for layer, change in inspection.layers.items()}
    return _changes("layer", rows, {})


def _kinds(inspection: Inspection) -> Table:
    return _changes("kind", inspection.kinds, inspection.energies)


def _tensors(inspection: Inspection) -> Table:
    changes = {tensor.name: tensor.change for tensor in inspection.tensors}
    drawn = _changes("tensor", changes, {tensor.name: tensor.energy for tensor in inspection.tensors if tensor.energy})
    drawn.columns[0].no_wrap, drawn.columns[0].overflow = False, "fold"
    return drawn


def _changes(what: str, rows: Mapping[str, Change], energies: Mapping[str, Mapping[int, float]]) -> Table:
    ranks = sorted({rank for shares in energies.values() for rank in shares})
    drawn = table(what, "parameters", "norm", "relative", "unchanged", *(f"top {rank}" for rank in ranks))
    for name, change in rows.items():
        shares = [percent(energies.get(name, {}).get(rank), 0) for rank in ranks]
        drawn.add_row(
            Text(safe(name)),
            f"{change.parameters:,}",
            f"{change.norm:.3g}",
            percent(change.relative_norm, 2),
            percent(change.unchanged_share),
            *shares,
        )
    if ranks:
        drawn.caption = "top k: energy in the k largest singular values"
        drawn.caption_justify = "left"
    return drawn


def _steps(steps: Mapping[str, Any]) -> Table:
    drawn = table("units in the last place", "entries", "")
    total = sum(steps["counts"])
    for label, count in zip(steps["bins"], steps["counts"], strict=True):
        if count:
            drawn.add_row(label, percent(count / total, 2), Text("█" * round(_BAR * count / total), style="blue"))
    drawn.columns[2].justify = "left"
    return drawn


def _relation(relation: Mapping[str, Any]) -> RenderableType:
    colour = "yellow" if relation["case"] in ("parallel", "unclear") else "green"
    rows = [
        ("ancestor", str(relation["ancestor"])),
        ("norms", f"v {relation['norm_v']:.4g}, base − ancestor {relation['norm_s']:.4g}, "
                  f"tuned − ancestor {relation['norm_g']:.4g}"),
        ("cosines", f"v, base {number(relation['cosine_v_s'])}; v, tuned {number(relation['cosine_v_g'])}; "
                    f"base, tuned {number(relation['cosine_s_g'])}"),
    ]  # fmt: skip
    head = Text.assemble(("donors: ", "dim"), (safe(str(relation["case"])), f"bold {colour}"))
    return Group(head, facts(rows), Text(safe(str(relation["explanation"]))))
