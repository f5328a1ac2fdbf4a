"""The figure of an inspection: where a vector is large, how much of it is nothing, by how many steps weights moved, and
how few directions hold it. Needs matplotlib, which is loaded only when a figure is drawn.
"""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reasonvec.errors import MissingExtraError, OutputError, UsageError
from reasonvec.weights.analysis import Inspection
from reasonvec.weights.arithmetic import STEP_BINS
from reasonvec.weights.spectrum import RANKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg", ".pdf")

_BLUE, _GREY = "#2b6cb0", "#9aa5b1"


def check_plot_file(file: str | Path, *, force: bool = False) -> Path:
    """Raise, before anything slow, if no figure could be written to `file`: UsageError for its suffix, OutputError
    for a directory that is not there or a file that is, MissingExtraError without matplotlib."""
    path = Path(file)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot {path} has the suffix {path.suffix!r}; a figure is {', '.join(SUFFIXES)}.")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent} does not exist or is no directory, so {path.name} cannot be made in it.")
    if os.path.lexists(path) and (not force or path.is_dir()):
        raise OutputError(f"{path} exists already and is never overwritten. Choose another name for the figure.")
    figure_class()
    return path


def plot_inspection(inspection: Inspection, file: str | Path, *, force: bool = False) -> None:
    """Draw the figure of an inspection to `file`, whose suffix says the format; an existing one stays unless `force`.

    Raises what `check_plot_file` raises, and OutputError if the file cannot be written.
    """
    path = check_plot_file(file, force=force)
    figure = figure_class()(figsize=(12, 9), layout="constrained")
    rows = figure.subplots(2, 2)
    _draw_heat_map(rows[0][0], inspection)
    _draw_unchanged(rows[0][1], inspection)
    _draw_steps(rows[1][0], inspection)
    _draw_energy(rows[1][1], inspection)
    total = inspection.total
    relative = "" if total.relative_norm is None else f", {total.relative_norm:.2%} of the weights' norm"
    title = f"{Path(inspection.name).name}: {total.parameters:,} parameters, norm {total.norm:.4g}{relative}"
    figure.suptitle(plain(title), fontsize=13)
    save_figure(figure, path)


def figure_class() -> Any:
    """matplotlib's Figure. Raises MissingExtraError where it is not installed."""
    try:
        from matplotlib.figure import Figure  # here because it takes half a second and is an extra
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"A figure needs the Python package {error.name}, which is not installed. Install what reports need with: "
            f'pip install "reasonvec[report]"'
        ) from error
    return Figure  # not pyplot: no window system, no state that outlives the figure


def save_figure(figure: Any, path: Path) -> None:
    """Write to a neighbour and rename, so that the name never holds half a figure."""
    handle, temporary = -1, ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            # no date in it: the same vector gives the same bytes
            metadata = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[path.suffix.lower()]
            figure.savefig(stream, format=path.suffix.lower()[1:], dpi=140, metadata=metadata)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise OutputError(
            f"{path} could not be written: {error.strerror or error}. Nothing was left behind."
        ) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def plain(text: str) -> str:
    """Text from a file's name: a dollar sign would start a formula."""
    return "".join(letter if letter.isprintable() else "?" for letter in text).replace("$", r"\$")


def say(axes: "Axes", text: str) -> None:
    """Words where there is nothing to draw."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color="#555555")


def _draw_heat_map(axes: "Axes", inspection: Inspection) -> None:
    layers, kinds = list(inspection.layers), list(inspection.kinds)
    grid = np.full((len(layers), len(kinds)), np.nan)
    for i, layer in enumerate(layers):
        for j, kind in enumerate(kinds):
            cell = [t.change for t in inspection.tensors if t.layer == layer and t.kind == kind]
            weights = sum(change.base_norm**2 for change in cell)
            if weights:
                grid[i, j] = 100 * (sum(change.norm**2 for change in cell) / weights) ** 0.5
    axes.set_title("Relative norm of the delta, % of the weights'")
    axes.set_xticks(range(len(kinds)), kinds, rotation=40, ha="right")
    step = max(1, len(layers) // 16)
    shown = [i for i, layer in enumerate(layers) if layer is None or i % step == 0]
    axes.set_yticks(shown, ["outside" if layers[i] is None else str(layers[i]) for i in shown])
    axes.set_ylabel("layer")
    if np.isfinite(grid).any():
        image = axes.imshow(grid, aspect="auto", cmap="viridis", vmin=0)
        axes.figure.colorbar(image, ax=axes)
        axes.set_facecolor("#e6e6e6")  # where a layer has no such module
    else:
        say(axes, "the base donor's weights are zero")


def _draw_unchanged(axes: "Axes", inspection: Inspection) -> None:
    layers = inspection.layers
    shares = [100 * (change.unchanged_share or 0) for change in layers.values()]
    colours = [_GREY if layer is None else _BLUE for layer in layers]
    axes.bar(range(len(shares)), shares, color=colours)
    step = max(1, len(layers) // 16)
    shown = [(i, layer) for i, layer in enumerate(layers) if layer is None or i % step == 0]
    axes.set_xticks([i for i, _ in shown], ["outside" if layer is None else str(layer) for _, layer in shown])
    axes.set_title("Entries that did not change")
    axes.set_xlabel("layer")
    axes.set_ylabel("% of entries")
    axes.set_ylim(0, 100)


def _draw_steps(axes: "Axes", inspection: Inspection) -> None:
    counts = np.array(inspection.steps, np.float64)
    axes.set_title("Units in the last place that entries moved by")
    if not counts.sum():
        say(axes, "not counted: a control, or a lossy vector")
        return
    shares = 100 * counts / counts.sum()
    bars = axes.bar(range(len(shares)), shares, color=[_GREY] + [_BLUE] * (len(shares) - 1))
    axes.bar_label(bars, [f"{share:.1f}" if share >= 0.05 else "" for share in shares], fontsize=8)
    axes.set_xticks(range(len(shares)), STEP_BINS, rotation=40, ha="right")
    axes.set_ylabel("% of entries")
    axes.set_ylim(0, min(110.0, 1.12 * float(shares.max())))


def _draw_energy(axes: "Axes", inspection: Inspection) -> None:
    energies = inspection.energies
    axes.set_title("Energy in the largest singular values")
    if not energies:
        say(axes, "not measured")
        return
    width = 0.8 / len(RANKS)
    for i, (rank, colour) in enumerate(zip(RANKS, ("#1a365d", _BLUE, "#90cdf4"), strict=True)):
        places = [j + (i - 1) * width for j in range(len(energies))]
        axes.bar(places, [100 * shares[rank] for shares in energies.values()], width, color=colour, label=f"top {rank}")
    axes.set_xticks(range(len(energies)), list(energies), rotation=40, ha="right")
    axes.set_ylabel("% of the squared norm")
    axes.set_ylim(0, 118)  # room for the legend above full bars
    axes.legend(fontsize=9, ncols=3, loc="upper center")
