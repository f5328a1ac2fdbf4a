"""What tables for people are made of, and how numbers are written in them. Knows nothing of what they show."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text


def safe(text: str) -> str:
    """Without what could steer a terminal; line breaks stay."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def table(*columns: str, title: str | None = None) -> Table:
    """A table whose first column is text and whose others are numbers."""
    made = Table(
        box=box.SIMPLE_HEAD,
        title=None if title is None else Text(title, style="bold"),  # a str would be read as markup
        title_justify="left",
        pad_edge=False,
        collapse_padding=True,
    )
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    return made


def facts(rows: Sequence[tuple[str, str]]) -> Table:
    made = Table.grid(padding=(0, 2))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, Text(safe(value)))
    return made


def percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{share:.{digits}%}"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def size(nbytes: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= factor:
            return f"{nbytes / factor:.1f} {unit}"
    return f"{nbytes} bytes"
