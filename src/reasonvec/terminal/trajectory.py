"""What `trajectory` shows people: the way overall, then by layer."""

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reasonvec.terminal.parts import facts, number, percent, safe, table
from reasonvec.weights.trajectory import Trajectory

_COLUMNS = 8
"""Points that are shown by layer; --json has all."""
_LEGEND = (
    "to final: cosine of checkpoint − base to the last one's; unrelated: what that would be if the moves were "
    "orthogonal to one another; to next: cosine of the move to a step to the next move"
)


def trajectory(trajectory: Trajectory) -> RenderableType:
    """A row for each point of the way; then the cosines by layer, of some points where there are many."""
    points, course = trajectory.points, trajectory.overall
    tasks = sorted({task for point in points for task in point.accuracies})
    rows = table("step", "norm", "to final", "unrelated", "moved", "to next", *(escape(safe(task)) for task in tasks))
    for i, point in enumerate(points):
        rows.add_row(
            point.name, f"{course.norms[i]:.4g}", number(course.cosines[i]), number(course.unrelated[i]),
            f"{course.moves[i]:.3g}", number(course.turns[i]),
            *(percent(point.accuracies.get(task)) for task in tasks),
        )  # fmt: skip
    measured = [f"{task} {percent(share)}" for task, share in trajectory.base_accuracies.items()]
    return Group(
        facts([("base", ", ".join([trajectory.base, *measured]))]),
        rows,
        Padding(Text(_LEGEND, style="dim"), (0, 0, 1, 0)),
        _by_layer(trajectory, "cosines", "Cosine to the final vector"),
        _by_layer(trajectory, "turns", "Cosine of the move to a step to the next move"),
    )


def _by_layer(trajectory: Trajectory, what: str, title: str) -> Table:
    count = len(trajectory.points)
    spread = {round(i * (count - 1) / (_COLUMNS - 1)) for i in range(_COLUMNS)}
    shown = sorted(spread) if count > _COLUMNS else range(count)
    rows = table("layer", *(trajectory.points[i].name for i in shown), title=title)
    for layer, course in trajectory.layers.items():
        rows.add_row(layer, *(number(getattr(course, what)[i]) for i in shown))
    return rows
