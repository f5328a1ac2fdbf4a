"""What `perturb` and `overlap` tell people when they are done."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reasonvec.evaluation.overlap.search import HOW, Overlap
from reasonvec.evaluation.perturbations.suite import Perturbation
from reasonvec.terminal.parts import facts, percent, safe, size, table

_LISTED = 20
"""Overlapping problems that are shown by name."""


def perturbation(made: Perturbation) -> RenderableType:
    """What `perturb` made: how many problems, and for what reason the others are not among them."""
    header = made.header
    told = facts([
        ("file", str(made.out)),
        ("sha256", made.sha256),
        ("operator", f"{header['operator']}, severity {header['severity']} ({header['severity_means']}), "
                     f"seed {header['seed']}, suite version {header['suite_version']}"),
        ("applies to", f"{header['applied']:,} of {header['problems']:,} problems ({percent(header['share'])})"),
    ])  # fmt: skip
    if not header["left_out"]:
        return told
    reasons = table("left out because", "problems")
    for reason, count in sorted(header["left_out"].items(), key=lambda one: (-one[1], one[0])):
        reasons.add_row(Text(reason), f"{count:,}")
    return Group(told, reasons)


def overlap(found: Overlap) -> RenderableType:
    """How many problems overlap how, the surest of them by name, and where each is first."""
    total = len(found.benchmark.problems)
    counts = table("question", "problems", "share")
    meanings = ("verbatim", "but for case, spaces, punctuation", "8 words or more of it")
    for how, meaning in zip(HOW, meanings, strict=True):
        counts.add_row(f"{how}: {meaning}", f"{found.counts[how]:,}", percent(found.counts[how] / total))
    counts.add_row("any", f"{len(found.problems):,}", percent(len(found.problems) / total), style="bold")
    rows = sum(file["rows"] for file in found.files)
    searched = size(sum(file["bytes"] for file in found.files))
    told = [
        ("benchmark", f"{found.benchmark.name}, {total:,} problems"),
        ("training", f"{rows:,} rows, {searched} in {len(found.files)} file(s); {found.rows:,} rows overlap"),
    ]
    if found.unsearchable:
        told.append(("not searched", f"{len(found.unsearchable)} questions without a word"))
    parts: list[RenderableType] = [facts(told), counts]
    if found.problems:
        parts.append(_overlapping(found))
    return Group(*parts)


def _overlapping(found: Overlap) -> Table:
    surest = sorted(found.problems, key=lambda one: (HOW.index(one.how), -one.distinctive / one.runs, one.id))
    drawn = table("problem", "how", "runs found", "own", "rows", "first in")
    for one in surest[:_LISTED]:
        drawn.add_row(Text(safe(one.id)), one.how, f"{one.found} of {one.runs}", str(one.distinctive), f"{one.rows:,}",
                      Text(safe(f"{one.file}:{one.line}")))  # fmt: skip
    drawn.columns[5].justify, drawn.columns[5].no_wrap, drawn.columns[5].overflow = "left", False, "fold"
    more = f" {len(surest) - _LISTED:,} more; --json lists all." if len(surest) > _LISTED else ""
    drawn.caption = f"Runs are of 8 words; own are those that no other problem of the task has.{more}"
    drawn.caption_justify = "left"
    return drawn
