"""What `check` shows people: the findings, and whether the vector fits."""

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reasonvec.terminal.parts import number, percent, safe, table
from reasonvec.weights.compatibility import CheckReport
from reasonvec.weights.lineage import Distance, Lineage

_COLOURS = {"blocking": "bold red", "warning": "yellow", "note": "cyan"}


def check_report(report: CheckReport) -> RenderableType:
    """Every finding with its evidence and advice, the distances by layer, and last whether the vector fits."""
    parts: list[RenderableType] = []
    for finding in report.findings:
        head = Text.assemble((finding.level, _COLOURS[finding.level]), "  ", (safe(finding.title), "bold"))
        parts += [head, Padding(Text(safe(finding.evidence)), (0, 0, 0, 2))]
        parts.append(Padding(Text(f"→ {safe(finding.advice)}", style="dim"), (0, 0, 1, 2)))
    if report.lineage:
        parts.append(_lineage(report.lineage))
    parts.append(_conclusion(report))
    return Group(*parts)


def _lineage(lineage: Lineage) -> Table:
    drawn = table("layer", "distance", "cosine", "verdict", title="Target and base donor, sampled weights")
    distances: dict[str, Distance] = {"all": lineage.overall, **lineage.layers}
    for layer, distance in distances.items():
        verdict = distance.verdict or "cannot tell"
        drawn.add_row(layer, percent(distance.relative), number(distance.cosine), verdict,
                      style="bold" if layer == "all" else None)  # fmt: skip
    return drawn


def _conclusion(report: CheckReport) -> Text:
    def count(level: str) -> int:
        return sum(finding.level == level for finding in report.findings)

    if not report.fits:
        return Text(f"Does not fit: {count('blocking')} blocking.", style="bold red")
    warnings = count("warning")
    note = f", with {warnings} warning{'s' * (warnings > 1)} above" if warnings else ""
    return Text(f"Fits{note}.", style="bold yellow" if warnings else "bold green")
