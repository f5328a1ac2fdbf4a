"""What an operator gives back: a changed problem, or the reason why it does not apply. No behaviour."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reasonvec.evaluation.benchmarks import BenchmarkProblem
from reasonvec.evaluation.perturbations.stream import RandomStream

Edit = Mapping[str, Any]
"""One change as JSON: `kind`, and what is needed to see it, mostly `from`, `to` and `at`, its place in characters of
the original question."""


@dataclass(frozen=True)
class Perturbed:
    """A problem in its changed form."""

    question: str
    edits: tuple[Edit, ...]
    gold: str
    solution: str | None
    """A worked solution of the changed question; None where there is none that still holds."""
    gold_changed: bool | None = False
    """Whether the gold answer is another one; None where nobody knows whether it still holds."""


@dataclass(frozen=True)
class Inapplicable:
    """The operator has nothing safe to do to this problem."""

    reason: str
    """In few words; problems are counted by it."""


@dataclass(frozen=True, eq=False)
class Others:
    """The problems that an operator may take sentences or answers from. Compared by identity, so that what is found in
    them once can be kept."""

    problems: tuple[BenchmarkProblem, ...] = ()
    """In the order of their ids: no draw depends on the order of a file."""


Operator = Callable[[BenchmarkProblem, int, RandomStream, Others], Perturbed | Inapplicable]
"""(problem, severity, stream, others) -> the change. Pure but for the stream it draws from."""


def reworded(problem: BenchmarkProblem, question: str, edits: list[Edit]) -> Perturbed:
    """The problem in other words, its gold answer and solution as they were."""
    return Perturbed(question, tuple(edits), problem.gold, problem.solution)
