"""The figure of a trajectory: how long the vector grows, when it points where it ends, whether its moves go one way,
and what was measured on the way. Needs matplotlib, which is loaded only when a figure is drawn.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reasonvec.weights.figure import check_plot_file, figure_class, plain, save_figure, say
from reasonvec.weights.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _GREY, _PALE = "#2b6cb0", "#9aa5b1", "#bee3f8"
_SHOWN = 12
"""Labels on an axis; more would overlap."""


def plot_trajectory(trajectory: Trajectory, file: str | Path, *, title: str, force: bool = False) -> None:
    """Draw the figure of a trajectory to `file`, whose suffix says the format; an existing one stays unless `force`.

    Raises what `figure.check_plot_file` raises, and OutputError if the file cannot be written.
    """
    path = check_plot_file(file, force=force)
    figure = figure_class()(figsize=(15, 8.5), layout="constrained")
    panels = figure.subplots(2, 3)
    _draw_norms(panels[0][0], trajectory)
    _draw_cosines(panels[0][1], trajectory)
    _draw_turns(panels[0][2], trajectory)
    _draw_accuracies(panels[1][0], trajectory)
    _draw_layers(panels[1][1], trajectory, "cosines", "Cosine to the final vector, by layer")
    _draw_layers(panels[1][2], trajectory, "turns", "Cosine of a move to the next, by layer")
    figure.suptitle(plain(title), fontsize=13)
    save_figure(figure, path)


def _draw_norms(axes: "Axes", trajectory: Trajectory) -> None:
    axes.set_title("Norm of the vector")
    places = range(len(trajectory.points))
    axes.plot(places, trajectory.overall.norms, "o-", color=_BLUE, label="checkpoint − base")
    axes.plot(places, trajectory.overall.moves, "s--", color=_GREY, label="move since the point before")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=9)
    _label_steps(axes, trajectory)


def _draw_cosines(axes: "Axes", trajectory: Trajectory) -> None:
    axes.set_title("Cosine to the final vector")
    _band(axes, trajectory, [course.cosines for course in trajectory.layers.values()])
    axes.plot(range(len(trajectory.points)), _numbers(trajectory.overall.cosines), "o-", color=_BLUE, label="all")
    axes.plot(range(len(trajectory.points)), _numbers(trajectory.overall.unrelated), ":", color="#333333",
              label="if the moves were unrelated")  # fmt: skip
    _cosine_axis(axes, trajectory)


def _draw_turns(axes: "Axes", trajectory: Trajectory) -> None:
    axes.set_title("Cosine of a move to the next")
    if not any(turn is not None for turn in trajectory.overall.turns):
        say(axes, "takes three checkpoints that differ")
        return
    _band(axes, trajectory, [course.turns for course in trajectory.layers.values()])
    axes.plot(range(len(trajectory.points)), _numbers(trajectory.overall.turns), "o-", color=_BLUE, label="all")
    axes.axhline(0, color="#333333", linestyle=":", label="unrelated")
    _cosine_axis(axes, trajectory)


def _draw_accuracies(axes: "Axes", trajectory: Trajectory) -> None:
    axes.set_title("Accuracy along the way")
    tasks = sorted({task for point in trajectory.points for task in point.accuracies})
    if not tasks:
        say(axes, "not measured")
        return
    for task in tasks:
        shares = [100 * point.accuracies.get(task, np.nan) for point in trajectory.points]
        (line,) = axes.plot(range(len(shares)), shares, "o-", label=plain(task))
        if task in trajectory.base_accuracies:
            axes.axhline(100 * trajectory.base_accuracies[task], color=line.get_color(), linestyle=":",
                         label=f"{plain(task)}, base")  # fmt: skip
    axes.set_ylabel("right answers, %")
    axes.legend(fontsize=9)
    _label_steps(axes, trajectory)


def _draw_layers(axes: "Axes", trajectory: Trajectory, what: str, title: str) -> None:
    """A row for each layer, a column for each point; grey where there is no cosine."""
    axes.set_title(title)
    grid = np.array([_numbers(getattr(course, what)) for course in trajectory.layers.values()])
    if not np.isfinite(grid).any():
        say(axes, "takes three checkpoints that differ")
        return
    image = axes.imshow(grid, aspect="auto", cmap="RdBu", vmin=-1, vmax=1)
    axes.figure.colorbar(image, ax=axes)
    axes.set_facecolor("#e6e6e6")
    layers = list(trajectory.layers)
    shown = _thinned(len(layers))
    axes.set_yticks(shown, ["outside" if layers[i] == "other" else layers[i] for i in shown])
    axes.set_ylabel("layer")
    _label_steps(axes, trajectory)


def _band(axes: "Axes", trajectory: Trajectory, layers: Sequence[Sequence[float | None]]) -> None:
    """From the lowest to the highest layer at every point."""
    rows = [[value for row in layers if (value := row[i]) is not None] for i in range(len(trajectory.points))]
    low, high = [min(row, default=np.nan) for row in rows], [max(row, default=np.nan) for row in rows]
    axes.fill_between(range(len(rows)), low, high, color=_PALE, label="lowest to highest layer")


def _cosine_axis(axes: "Axes", trajectory: Trajectory) -> None:
    low = axes.get_ylim()[0]
    axes.set_ylim(-1.05 if low < -0.35 else -0.35 if low < -0.1 else -0.1, 1.05)
    axes.legend(fontsize=9, loc="best")
    _label_steps(axes, trajectory)


def _label_steps(axes: "Axes", trajectory: Trajectory) -> None:
    # one place for each point, whatever the steps: kept at powers of two, most would crowd at the left
    shown = _thinned(len(trajectory.points))
    axes.set_xticks(shown, [trajectory.points[i].name for i in shown])
    axes.set_xlim(-0.5, len(trajectory.points) - 0.5)
    axes.set_xlabel("step")


def _thinned(count: int) -> list[int]:
    stride = -(-count // _SHOWN)
    return [i for i in range(count) if i % stride == 0]


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [np.nan if value is None else value for value in values]
