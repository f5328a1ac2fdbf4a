"""What the commands show people: tables and paragraphs for rich, from the values that the functions return. Fits 80
columns. Text from files is never read as markup.
"""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reasonvec.evaluation.overlap.search import HOW, Overlap
from reasonvec.evaluation.perturbations.suite import Perturbation
from reasonvec.interchange.dcp_import import DcpImport
from reasonvec.interchange.lora_export import LoraExport
from reasonvec.interchange.lora_import import LoraImport
from reasonvec.terminal.parts import facts as _facts
from reasonvec.terminal.parts import number as _number
from reasonvec.terminal.parts import percent as _percent
from reasonvec.terminal.parts import safe as _safe
from reasonvec.terminal.parts import size as _size
from reasonvec.terminal.parts import table as _table
from reasonvec.weights.analysis import Change, Inspection
from reasonvec.weights.comparison import Comparison, Pair
from reasonvec.weights.compatibility import CheckReport
from reasonvec.weights.compression import Compression
from reasonvec.weights.extraction import Extraction
from reasonvec.weights.job import Application
from reasonvec.weights.lineage import Distance, Lineage
from reasonvec.weights.receipt import RealisedAlpha
from reasonvec.weights.trajectory import Trajectory
from reasonvec.weights.vector import lossy_method
from reasonvec.weights.verification import Verification

_COLOURS = {"blocking": "bold red", "warning": "yellow", "note": "cyan"}
_BAR = 16
_LISTED = 20
"""Overlapping problems that are shown by name."""
_COLUMNS = 8
"""Points of a trajectory that are shown by layer; --json has all."""


def inspection(inspection: Inspection, *, tensors: bool = False) -> RenderableType:
    """A vector at a glance: the whole, its donors, then a row for each layer and each kind of module, and with
    `tensors` for each tensor."""
    parts: list[RenderableType] = [_facts(_whole(inspection)), _layers(inspection), _kinds(inspection)]
    if tensors:
        parts.append(_tensors(inspection))
    if sum(inspection.steps):
        parts.append(_steps(inspection.to_json()["steps"]))
    if inspection.relation:
        parts.append(_relation(inspection.relation))
    return Group(*parts)


def comparison(comparison: Comparison) -> RenderableType:
    """The vectors with a number each, then every pair of them, overall and by layer."""
    vectors = _table("vector", "", "norm")
    for number, (name, norm) in enumerate(zip(comparison.vectors, comparison.norms, strict=True), 1):
        vectors.add_row(str(number), Text(_safe(name)), f"{norm:.4g}")
    name_column = vectors.columns[1]
    name_column.justify, name_column.overflow, name_column.no_wrap = "left", "fold", False
    return Group(vectors, *(_pair(pair, comparison) for pair in comparison.pairs))


def trajectory(trajectory: Trajectory) -> RenderableType:
    """A row for each point of the way; then the cosines by layer, of some points where there are many."""
    points, course = trajectory.points, trajectory.overall
    tasks = sorted({task for point in points for task in point.accuracies})
    table = _table(
        "step", "norm", "to final", "unrelated", "moved", "to next", *(escape(_safe(task)) for task in tasks)
    )
    for i, point in enumerate(points):
        table.add_row(
            point.name, f"{course.norms[i]:.4g}", _number(course.cosines[i]), _number(course.unrelated[i]),
            f"{course.moves[i]:.3g}", _number(course.turns[i]),
            *(_percent(point.accuracies.get(task)) for task in tasks),
        )  # fmt: skip
    legend = (
        "to final: cosine of checkpoint − base to the last one's; unrelated: what that would be if the moves were "
        "orthogonal to one another; to next: cosine of the move to a step to the next move"
    )
    return Group(_facts([("base", trajectory.base)]), table, Padding(Text(legend, style="dim"), (0, 0, 1, 0)),
                 _by_layer(trajectory, "cosines", "Cosine to the final vector"),
                 _by_layer(trajectory, "turns", "Cosine of the move to a step to the next move"))  # fmt: skip


def _by_layer(trajectory: Trajectory, what: str, title: str) -> Table:
    count = len(trajectory.points)
    shown = (
        sorted({round(i * (count - 1) / (_COLUMNS - 1)) for i in range(_COLUMNS)}) if count > _COLUMNS else range(count)
    )
    table = _table("layer", *(trajectory.points[i].name for i in shown), title=title)
    for layer, course in trajectory.layers.items():
        table.add_row(layer, *(_number(getattr(course, what)[i]) for i in shown))
    return table


def check_report(report: CheckReport) -> RenderableType:
    """Every finding with its evidence and advice, the distances by layer, and last whether the vector fits."""
    parts: list[RenderableType] = []
    for finding in report.findings:
        head = Text.assemble((finding.level, _COLOURS[finding.level]), "  ", (_safe(finding.title), "bold"))
        parts += [head, Padding(Text(_safe(finding.evidence)), (0, 0, 0, 2))]
        parts.append(Padding(Text(f"→ {_safe(finding.advice)}", style="dim"), (0, 0, 1, 2)))
    if report.lineage:
        parts.append(_lineage(report.lineage))
    parts.append(_conclusion(report))
    return Group(*parts)


def extraction(extraction: Extraction) -> RenderableType:
    """What `extract` made."""
    made = extraction.to_json()
    relative = made["norm"] / made["base_norm"] if made["base_norm"] else None
    facts = [
        ("vector", made["path"]),
        ("tensors", f"{made['tensors']}, {made['parameters']:,} parameters"),
        ("unchanged", f"{_percent(made['unchanged_share'], 2)} of the entries"),
        ("norm", f"{_number(made['norm'])}, {_percent(relative, 3)} of the base donor's weights"),
    ]
    if made["left_out"]:
        facts.append(("left out", f"{len(made['left_out'])} tensors"))
    if extraction.relation:
        facts.append(("donors", f"{extraction.relation.case}: {extraction.relation.explanation}"))
    return _facts(facts)


def application(application: Application) -> RenderableType:
    """What `apply` or `transfer` did, or would do."""
    total = sum(application.shards.values())
    wrote = "would write" if application.realised is None else "wrote"
    facts = [
        (wrote, f"{application.out}: {_size(total)} in {len(application.shards)} file(s)"),
        ("added to", f"{application.changed_tensors} tensors"),
        ("not added to", f"{application.kept_tensors} tensors"),
    ]
    if application.realised:
        facts.append(("realised", f"{_percent(application.realised.overall, 2)} of the requested change"))
    return _facts(facts)


def compression(compression: Compression, *, tensors: bool = False) -> RenderableType:
    """What `compress` made and lost: the whole, then a row for each kind of module and, with `tensors`, each tensor."""
    lossy = compression.lossy
    share = compression.nbytes / compression.nbytes_before if compression.nbytes_before else None
    facts = [
        ("wrote", f"{compression.vector.location}: {_size(compression.nbytes)}, {_percent(share)} of the exact vector"),
        ("method", f"{compression.method}, seed {lossy['seed']}"),
        ("kept exactly", f"{len(lossy['kept_exactly'])} of {len(lossy['tensors'])} tensors"),
    ]
    if lossy["measured_on"]:
        facts.append(("changed", f"entries of {lossy['measured_on']} plus the vector, at alpha 1"))
    parts: list[RenderableType] = [_facts(facts), _losses("kind", {**lossy["kinds"], "all": lossy})]
    if tensors:
        parts.append(_losses("tensor", lossy["tensors"]))
    return Group(*parts)


def _losses(what: str, rows: Mapping[str, Mapping[str, float | None]]) -> Table:
    table = _table(what, "relative error", "cosine", "changed")
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
    for name, loss in rows.items():
        table.add_row(Text(_safe(name)), _percent(loss["relative_error"], 2), _number(loss["cosine"]),
                      _percent(loss["changed_share"], 2), style="bold" if name == "all" else None)  # fmt: skip
    return table


def realised_line(realised: RealisedAlpha) -> str:
    """Which share of the requested change the target's grid let through, overall and by layer, for stderr."""
    layers = ", ".join(f"{layer} {_percent(share, 1)}" for layer, share in realised.layers.items())
    return f"realised: {_percent(realised.overall, 2)} of the requested change; by layer: {layers}"


def verification(verification: Verification) -> RenderableType:
    """That all of it holds."""
    how = "computed again from the inputs, bit for bit" if verification.recomputed else "by their checksums"
    return Text(f"yes: {verification.path} is what it says it is ({verification.kind}, {verification.tensors} tensors "
                f"verified {how}).")  # fmt: skip


def dcp_import(imported: DcpImport) -> RenderableType:
    """What `import dcp` made."""
    made = imported.to_json()
    return _facts([
        ("checkpoint", f"{made['path']}: {_size(sum(imported.shards.values()))} in {len(imported.shards)} file(s)"),
        ("tensors", f"{made['tensors']} of {', '.join(made['dtypes'])}"),
        ("prefix", f"{imported.prefix} before the model's names"),
        ("not written", f"{len(imported.ignored)} other entries, {len(imported.tied)} tied copies"),
    ])  # fmt: skip


def lora_import(imported: LoraImport) -> RenderableType:
    """What `import lora` made."""
    made = imported.to_json()
    relative = made["norm"] / made["base_norm"] if made["base_norm"] else None
    return _facts([
        ("vector", made["path"]),
        ("low rank", f"{imported.low_rank} tensors"),
        ("replaced", f"{imported.replaced} tensors that the adapter holds whole"),
        ("zero", f"{made['tensors'] - made['touched_tensors']} tensors that it does not touch"),
        ("norm", f"{_number(made['norm'])}, {_percent(relative, 3)} of the base's weights"),
    ])  # fmt: skip


def lora_export(exported: LoraExport) -> RenderableType:
    """How well each module is held, what is left out, and how much of the vector is lost in all."""
    fits = _table("module", "rank", "norm", "error", "energy kept")
    for fit in exported.modules:
        fits.add_row(
            Text(_safe(fit.name)), str(fit.rank), f"{fit.norm:.3g}", _percent(fit.relative_error), _percent(fit.energy)
        )
    parts: list[RenderableType] = [fits]
    if exported.left_out:
        rest = _table("left out", "norm", "reason")
        for left_out in exported.left_out:
            rest.add_row(Text(_safe(left_out.name)), f"{left_out.norm:.3g}", Text(_safe(left_out.reason)))
        rest.columns[2].justify, rest.columns[2].no_wrap = "left", False
        parts.append(rest)
    for table in parts:
        assert isinstance(table, Table)
        table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
    facts = [
        ("adapter", str(exported.out)),
        ("lost", f"{_percent(exported.lost_energy, 2)} of the vector's energy (squared norm)"),
    ]
    return Group(*parts, _facts(facts))


def perturbation(made: Perturbation) -> RenderableType:
    """What `perturb` made: how many problems, and for what reason the others are not among them."""
    header = made.header
    facts = _facts([
        ("file", str(made.out)),
        ("sha256", made.sha256),
        ("operator", f"{header['operator']}, severity {header['severity']} ({header['severity_means']}), "
                     f"seed {header['seed']}, suite version {header['suite_version']}"),
        ("applies to", f"{header['applied']:,} of {header['problems']:,} problems ({_percent(header['share'])})"),
    ])  # fmt: skip
    if not header["left_out"]:
        return facts
    reasons = _table("left out because", "problems")
    for reason, count in sorted(header["left_out"].items(), key=lambda one: (-one[1], one[0])):
        reasons.add_row(Text(reason), f"{count:,}")
    return Group(facts, reasons)


def overlap(found: Overlap) -> RenderableType:
    """How many problems overlap how, the surest of them by name, and where each is first."""
    total = len(found.benchmark.problems)
    counts = _table("question", "problems", "share")
    meanings = ("verbatim", "but for case, spaces, punctuation", "8 words or more of it")
    for how, meaning in zip(HOW, meanings, strict=True):
        counts.add_row(f"{how}: {meaning}", f"{found.counts[how]:,}", _percent(found.counts[how] / total))
    counts.add_row("any", f"{len(found.problems):,}", _percent(len(found.problems) / total), style="bold")
    rows = sum(file["rows"] for file in found.files)
    searched = _size(sum(file["bytes"] for file in found.files))
    facts = [
        ("benchmark", f"{found.benchmark.name}, {total:,} problems"),
        ("training", f"{rows:,} rows, {searched} in {len(found.files)} file(s); {found.rows:,} rows overlap"),
    ]
    if found.unsearchable:
        facts.append(("not searched", f"{len(found.unsearchable)} questions without a word"))
    parts: list[RenderableType] = [_facts(facts), counts]
    if found.problems:
        parts.append(_overlapping(found))
    return Group(*parts)


def _overlapping(found: Overlap) -> Table:
    surest = sorted(found.problems, key=lambda one: (HOW.index(one.how), -one.distinctive / one.runs, one.id))
    table = _table("problem", "how", "runs found", "own", "rows", "first in")
    for one in surest[:_LISTED]:
        table.add_row(Text(_safe(one.id)), one.how, f"{one.found} of {one.runs}", str(one.distinctive), f"{one.rows:,}",
                      Text(_safe(f"{one.file}:{one.line}")))  # fmt: skip
    table.columns[5].justify, table.columns[5].no_wrap, table.columns[5].overflow = "left", False, "fold"
    more = f" {len(surest) - _LISTED:,} more; --json lists all." if len(surest) > _LISTED else ""
    table.caption = f"Runs are of 8 words; own are those that no other problem of the task has.{more}"
    table.caption_justify = "left"
    return table


def _whole(inspection: Inspection) -> list[tuple[str, str]]:
    total = inspection.total
    rows = [("vector", inspection.name)]
    if control := inspection.document.get("control"):
        rows.append(("control", f"{control['kind']}, seed {control['seed']}"))
    if lossy := inspection.document.get("lossy"):
        rows.append(("lossy", f"{lossy_method(lossy)}; {_percent(lossy['relative_error'], 2)} of the exact vector's "
                              f"norm away from it"))  # fmt: skip
    for role in ("tuned", "base"):
        donor = inspection.document.get("donors", {}).get(role)
        if donor:
            revision = f"  ({donor['revision'][:12]})" if donor.get("revision") else ""
            rows.append((role, f"{donor['location']}{revision}"))
    rows += [
        ("parameters", f"{total.parameters:,} in {len(inspection.tensors)} tensors, {_size(inspection.nbytes)}"),
        ("norm", f"{total.norm:.4g}, {_percent(total.relative_norm, 2)} of the weights' norm"),
        ("unchanged", f"{_percent(total.unchanged_share)} of the entries"),
    ]
    if inspection.rounding_share:
        rows.append(("rounding", f"up to {_percent(inspection.rounding_share)} of the norm: the donors' dtypes differ"))
    return rows


def _layers(inspection: Inspection) -> Table:
    rows = {"outside" if layer is None else str(layer): change for layer, change in inspection.layers.items()}
    return _changes("layer", rows, {})


def _kinds(inspection: Inspection) -> Table:
    return _changes("kind", inspection.kinds, inspection.energies)


def _tensors(inspection: Inspection) -> Table:
    changes = {tensor.name: tensor.change for tensor in inspection.tensors}
    table = _changes("tensor", changes, {tensor.name: tensor.energy for tensor in inspection.tensors if tensor.energy})
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
    return table


def _changes(what: str, rows: Mapping[str, Change], energies: Mapping[str, Mapping[int, float]]) -> Table:
    ranks = sorted({rank for shares in energies.values() for rank in shares})
    table = _table(what, "parameters", "norm", "relative", "unchanged", *(f"top {rank}" for rank in ranks))
    for name, change in rows.items():
        shares = [_percent(energies.get(name, {}).get(rank), 0) for rank in ranks]
        table.add_row(
            Text(_safe(name)),
            f"{change.parameters:,}",
            f"{change.norm:.3g}",
            _percent(change.relative_norm, 2),
            _percent(change.unchanged_share),
            *shares,
        )
    if ranks:
        table.caption = "top k: energy in the k largest singular values"
        table.caption_justify = "left"
    return table


def _steps(steps: Mapping[str, Any]) -> Table:
    table = _table("units in the last place", "entries", "")
    total = sum(steps["counts"])
    for label, count in zip(steps["bins"], steps["counts"], strict=True):
        if count:
            table.add_row(label, _percent(count / total, 2), Text("█" * round(_BAR * count / total), style="blue"))
    table.columns[2].justify = "left"
    return table


def _relation(relation: Mapping[str, Any]) -> RenderableType:
    colour = "yellow" if relation["case"] in ("parallel", "unclear") else "green"
    rows = [
        ("ancestor", str(relation["ancestor"])),
        ("norms", f"v {relation['norm_v']:.4g}, base − ancestor {relation['norm_s']:.4g}, "
                  f"tuned − ancestor {relation['norm_g']:.4g}"),
        ("cosines", f"v, base {_number(relation['cosine_v_s'])}; v, tuned {_number(relation['cosine_v_g'])}; "
                    f"base, tuned {_number(relation['cosine_s_g'])}"),
    ]  # fmt: skip
    head = Text.assemble(("donors: ", "dim"), (_safe(str(relation["case"])), f"bold {colour}"))
    return Group(head, _facts(rows), Text(_safe(str(relation["explanation"]))))


def _pair(pair: Pair, comparison: Comparison) -> Table:
    title = f"{pair.first + 1} and {pair.second + 1}"
    table = _table("layer", "cosine", "same sign", "both changed", "norm", "norm", title=title)
    for layer, likeness in {"all": pair.overall, **pair.layers}.items():
        norms = comparison.norms if layer == "all" else comparison.layer_norms[layer]
        table.add_row(
            layer,
            _number(likeness.cosine),
            _percent(likeness.sign_agreement),
            _percent(likeness.both_changed_share),
            f"{norms[pair.first]:.3g}",
            f"{norms[pair.second]:.3g}",
            style="bold" if layer == "all" else None,
        )
    return table


def _lineage(lineage: Lineage) -> Table:
    table = _table("layer", "distance", "cosine", "verdict", title="Target and base donor, sampled weights")
    distances: dict[str, Distance] = {"all": lineage.overall, **lineage.layers}
    for layer, distance in distances.items():
        verdict = distance.verdict or "cannot tell"
        table.add_row(layer, _percent(distance.relative), _number(distance.cosine), verdict,
                      style="bold" if layer == "all" else None)  # fmt: skip
    return table


def _conclusion(report: CheckReport) -> Text:
    def count(level: str) -> int:
        return sum(finding.level == level for finding in report.findings)

    if not report.fits:
        return Text(f"Does not fit: {count('blocking')} blocking.", style="bold red")
    warnings = count("warning")
    note = f", with {warnings} warning{'s' * (warnings > 1)} above" if warnings else ""
    return Text(f"Fits{note}.", style="bold yellow" if warnings else "bold green")
