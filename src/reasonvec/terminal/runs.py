"""What runs show, for people: one run by itself. Numbers are explained in docs/evaluation.md."""

from rich.console import Group, RenderableType
from rich.text import Text

from reasonvec.evaluation.comparison import RunSummary
from reasonvec.evaluation.comparison.summary import Score
from reasonvec.terminal.parts import facts, percent, safe, table


def run_summary(summary: RunSummary) -> RenderableType:
    """Accuracy with its interval, what was answered and how long, and a row for each task where there are several."""
    each = f", {summary.samples} completions each" if summary.samples > 1 else ""
    rows = [("problems", f"{summary.problems:,}{each}"), ("right", interval(summary.accuracy))]
    rows += [(f"pass@{k}", interval(score)) for k, score in summary.pass_at.items()]
    if summary.macro:
        rows.append(("mean of tasks", interval(summary.macro)))
    others = (("strict match", summary.strict), ("flexible", summary.flexible))
    rows += [(name, interval(score)) for name, score in others if score]
    rows.append(("answered", f"{percent(summary.answered)} of the completions hold an answer"))
    if summary.cut_off is not None:
        rows.append(("cut off", f"{percent(summary.cut_off)} at the limit of new tokens; {summary.empty:,} are empty"))
    if summary.mean_tokens is not None:
        rows.append(("tokens", f"{summary.mean_tokens:.0f} on average, median {summary.median_tokens:.0f}"))
    parts: list[RenderableType] = [facts(rows)]
    if summary.tasks:
        tasks = table("task", "problems", "right", "95 % interval")
        for name, task in summary.tasks.items():
            tasks.add_row(Text(safe(name)), f"{task.problems:,}", percent(task.accuracy.value), _ends(task.accuracy))
        parts.append(tasks)
    return Group(*parts)


def interval(score: Score) -> str:
    return f"{percent(score.value)}, 95 % interval {_ends(score)}"


def _ends(score: Score) -> str:
    return f"{100 * score.low:.1f} to {percent(score.high)}"
