"""What was measured, as numbers with their spread, as tables and as bars that are met or not. Measures nothing."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from measuring import Usage

MB = 1_000_000


@dataclass(frozen=True)
class Spread:
    """A median with the smallest and the largest of `count` values."""

    median: float
    low: float
    high: float
    count: int

    def text(self, scale: float = 1.0) -> str:
        """As `1.23 (1.20–1.31)`, in multiples of `scale`."""
        median, low, high = (digits(value / scale) for value in (self.median, self.low, self.high))
        return f"{median} ({low}–{high})" if self.count > 1 else median


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(statistics.median(values), min(values), max(values), len(values))


def digits(value: float) -> str:
    """Three significant digits, without an exponent; counts as they are."""
    size = abs(value)
    if isinstance(value, int) or size >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.3f}"


def wall(usage: Usage) -> float:
    """Seconds from start to end."""
    return usage.wall


def ratios(
    usages: Mapping[str, Sequence[Usage]], name: str, reference: str, of: Callable[[Usage], float] = wall
) -> Spread | None:
    """Round by round, what `name` cost over what `reference` cost; None where one of them has no runs."""
    if not usages.get(name) or not usages.get(reference):
        return None
    pairs = zip(usages[name], usages[reference], strict=True)
    # the kernel counts CPU time in steps, so that of a very short run can be 0
    return spread([of(mine) / (of(other) or 1e-3) for mine, other in pairs])


@dataclass(frozen=True)
class Table:
    """Cells of text under a title."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """For a terminal."""
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        lines = [[*self.columns], ["-" * width for width in widths], *self.rows]
        body = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
        return "\n".join([self.title, *(f"  {line}".rstrip() for line in body)])

    def markdown(self) -> str:
        """For a document."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join([f"{self.title}:", "", *(f"| {' | '.join(line)} |" for line in lines)])


USAGE_COLUMNS = ("contender", "wall ratio", "CPU ratio", "peak ratio", "wall s", "user s", "system s", "peak MB",
                 "anonymous MB")  # fmt: skip


def usage_table(title: str, usages: Mapping[str, Sequence[Usage]], reference: str) -> Table:
    """What every contender cost: ratios to `reference`, round by round, first."""
    rows = []
    for name, runs in usages.items():
        relative = [ratios(usages, name, reference, of) for of in (wall, lambda u: u.cpu, lambda u: u.resident)]
        cells = [each.text() if each and name != reference else "1" if each else "" for each in relative]
        seconds = [spread([of(run) for run in runs]).text() for of in (wall, lambda u: u.user, lambda u: u.system)]
        memory = [digits(max(sizes) / MB) for sizes in ([r.resident for r in runs], [r.anonymous for r in runs])]
        rows.append([name, *cells, *seconds, *memory])
    return Table(f"{title}; ratios to: {reference}", USAGE_COLUMNS, rows)


@dataclass(frozen=True)
class Bar:
    """A goal and what was measured."""

    what: str
    measured: float
    goal: float
    unit: str
    at_least: bool = False
    """Whether larger is better."""
    aim: float | None = None
    """What would be better still."""

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.measured >= self.goal if self.at_least else self.measured <= self.goal

    def cells(self) -> list[str]:
        """A row for `BAR_COLUMNS`."""
        word = "at least" if self.at_least else "at most"
        goal = f"{word} {self.goal:g} {self.unit}".rstrip()
        if self.aim is not None:
            goal += f", aim {self.aim:g}"
        return [self.what, goal, f"{digits(self.measured)} {self.unit}".rstrip(), self.verdict()]

    def verdict(self) -> str:
        """Met or not, by how much of the goal, and whether the aim is reached."""
        verdict = "met" if self.met else "NOT MET"
        if self.goal:
            distance = self.measured / self.goal - 1
            verdict += f", {abs(distance):.0%} {'above' if distance > 0 else 'below'}"
        if self.met and self.aim is not None:
            reached = self.measured >= self.aim if self.at_least else self.measured <= self.aim
            verdict += ", aim reached" if reached else ", aim not reached"
        return verdict


BAR_COLUMNS = ("bar", "goal", "measured", "verdict")


@dataclass
class Part:
    """All that one part of the benchmark found out."""

    name: str
    how: str
    """How its numbers come about."""
    tables: list[Table] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=list)
    """What a picture is drawn of."""
    machine: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """For a terminal."""
        blocks = [*(table.text() for table in self.tables), *(f"note: {note}" for note in self.notes)]
        if self.bars:
            blocks.append(Table(f"bars of {self.name}", BAR_COLUMNS, [bar.cells() for bar in self.bars]).text())
        return "\n\n".join(blocks)

    def to_json(self) -> dict[str, Any]:
        """As it is kept for `--write`."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Part":
        """The inverse of `to_json`."""
        tables = [Table(**table) for table in document["tables"]]
        bars = [Bar(**bar) for bar in document["bars"]]
        return cls(**{**document, "tables": tables, "bars": bars})
