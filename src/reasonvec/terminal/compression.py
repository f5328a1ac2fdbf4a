"""What `compress` shows people: how much smaller, and what was lost."""

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reasonvec.terminal.parts import facts, number, percent, safe, size, table
from reasonvec.weights.compression import Compression


def compression(compression: Compression, *, tensors: bool = False) -> RenderableType:
    """What `compress` made and lost: the whole, then a row for each kind of module and, with `tensors`, each tensor."""
    lossy = compression.lossy
    share = compression.nbytes / compression.nbytes_before if compression.nbytes_before else None
    told = [
        ("wrote", f"{compression.vector.location}: {size(compression.nbytes)}, {percent(share)} of the exact vector"),
        ("method", f"{compression.method}, seed {lossy['seed']}"),
        ("kept exactly", f"{len(lossy['kept_exactly'])} of {len(lossy['tensors'])} tensors"),
    ]
    if lossy["measured_on"]:
        told.append(("changed", f"entries of {lossy['measured_on']} plus the vector, at alpha 1"))
    parts: list[RenderableType] = [facts(told), _losses("kind", {**lossy["kinds"], "all": lossy})]
    if tensors:
        parts.append(_losses("tensor", lossy["tensors"]))
    return Group(*parts)


def _losses(what: str, rows: Mapping[str, Mapping[str, float | None]]) -> Table:
    drawn = table(what, "relative error", "cosine", "changed")
    drawn.columns[0].no_wrap, drawn.columns[0].overflow = False, "fold"
    for name, loss in rows.items():
        drawn.add_row(Text(safe(name)), percent(loss["relative_error"], 2), number(loss["cosine"]),
                      percent(loss["changed_share"], 2), style="bold" if name == "all" else None)  # fmt: skip
    return drawn
