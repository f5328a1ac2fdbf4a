"""What `compare` shows people: the vectors, and how alike each two are."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reasonvec.terminal.parts import number, percent, safe, table
from reasonvec.weights.comparison import Comparison, Pair


def comparison(comparison: Comparison) -> RenderableType:
    """The vectors with a number each, then every pair of them, overall and by layer."""
    vectors = table("vector", "", "norm")
    for place, (name, norm) in enumerate(zip(comparison.vectors, comparison.norms, strict=True), 1):
        vectors.add_row(str(place), Text(safe(name)), f"{norm:.4g}")
    name_column = vectors.columns[1]
    name_column.justify, name_column.overflow, name_column.no_wrap = "left", "fold", False
    return Group(vectors, *(_pair(pair, comparison) for pair in comparison.pairs))


def _pair(pair: Pair, comparison: Comparison) -> Table:
    title = f"{pair.first + 1} and {pair.second + 1}"
    drawn = table("layer", "cosine", "same sign", "both changed", "norm", "norm", title=title)
    for layer, likeness in {"all": pair.overall, **pair.layers}.items():
        norms = comparison.norms if layer == "all" else comparison.layer_norms[layer]
        drawn.add_row(
            layer,
            number(likeness.cosine),
            percent(likeness.sign_agreement),
            percent(likeness.both_changed_share),
            f"{norms[pair.first]:.3g}",
            f"{norms[pair.second]:.3g}",
            style="bold" if layer == "all" else None,
        )
    return drawn
