"""What `import` and `export` tell people when they are done."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reasonvec.interchange.dcp_import import DcpImport
from reasonvec.interchange.lora_export import LoraExport
from reasonvec.interchange.lora_import import LoraImport
from reasonvec.terminal.parts import facts, number, percent, safe, size, table


def dcp_import(imported: DcpImport) -> RenderableType:
    """What `import dcp` made."""
    made = imported.to_json()
    return facts([
        ("checkpoint", f"{made['path']}: {size(sum(imported.shards.values()))} in {len(imported.shards)} file(s)"),
        ("tensors", f"{made['tensors']} of {', '.join(made['dtypes'])}"),
        ("prefix", f"{imported.prefix} before the model's names"),
        ("not written", f"{len(imported.ignored)} other entries, {len(imported.tied)} tied copies"),
    ])  # fmt: skip


def lora_import(imported: LoraImport) -> RenderableType:
    """What `import lora` made."""
    made = imported.to_json()
    relative = made["norm"] / made["base_norm"] if made["base_norm"] else None
    return facts([
        ("vector", made["path"]),
        ("low rank", f"{imported.low_rank} tensors"),
        ("replaced", f"{imported.replaced} tensors that the adapter holds whole"),
        ("zero", f"{made['tensors'] - made['touched_tensors']} tensors that it does not touch"),
        ("norm", f"{number(made['norm'])}, {percent(relative, 3)} of the base's weights"),
    ])  # fmt: skip


def lora_export(exported: LoraExport) -> RenderableType:
    """How well each module is held, what is left out, and how much of the vector is lost in all."""
    fits = table("module", "rank", "norm", "error", "energy kept")
    for fit in exported.modules:
        fits.add_row(
            Text(safe(fit.name)), str(fit.rank), f"{fit.norm:.3g}", percent(fit.relative_error), percent(fit.energy)
        )
    parts: list[RenderableType] = [fits]
    if exported.left_out:
        rest = table("left out", "norm", "reason")
        for left_out in exported.left_out:
            rest.add_row(Text(safe(left_out.name)), f"{left_out.norm:.3g}", Text(safe(left_out.reason)))
        rest.columns[2].justify, rest.columns[2].no_wrap = "left", False
        parts.append(rest)
    for drawn in parts:
        assert isinstance(drawn, Table)
        drawn.columns[0].no_wrap, drawn.columns[0].overflow = False, "fold"
    told = [
        ("adapter", str(exported.out)),
        ("lost", f"{percent(exported.lost_energy, 2)} of the vector's energy (squared norm)"),
    ]
    return Group(*parts, facts(told))
