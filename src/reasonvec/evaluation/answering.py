"""Answering a plan: batch by batch, each graded and on the disk before the next. Loads nothing and prints nothing."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat

from reasonvec.errors import CheckpointError
from reasonvec.evaluation.engines.interface import BROKEN, Engine, Generated
from reasonvec.evaluation.grading import grade
from reasonvec.evaluation.planning import Item, Plan
from reasonvec.evaluation.programs import grade_program
from reasonvec.evaluation.runs import Outcome, Recorder

Progress = Callable[[str, int, int], None]
"""(task, completions there are, completions in all): once before the first, and after every batch of them."""
_GRADERS = 2
"""Programs that are tried at the same time."""


def answer(
    plan: Plan, engine: Engine, recorder: Recorder, *, accept_unsandboxed: bool, progress: Progress | None
) -> None:
    """Answer what is not yet recorded, batch by batch; batches are the same whether or not the run was killed, since
    in floating point a completion may depend on its neighbours."""
    done = {(outcome.id, outcome.sample) for outcome in recorder.done}
    size = engine.batch_size
    there, total = len(done), len(plan.items) * plan.sampling.samples
    tell = progress or (lambda task, there, total: None)
    tell(plan.task, there, total)
    for first in range(0, len(plan.items), size):
        batch = plan.items[first : first + size]
        for sample in range(plan.sampling.samples):
            missing = [item for item in batch if (item.problem.id, sample) not in done]
            if missing:
                outcomes = _outcomes(plan, batch, engine, sample, accept_unsandboxed=accept_unsandboxed)
                recorder.append(outcome for outcome in outcomes if (outcome.id, sample) not in done)
                there += len(missing)
                tell(plan.task, there, total)


def has_programs(plan: Plan) -> bool:
    """Whether anything that the model writes will be run."""
    return any(item.problem.kind == "program" for item in plan.items)


def _outcomes(
    plan: Plan, batch: Sequence[Item], engine: Engine, sample: int, *, accept_unsandboxed: bool
) -> list[Outcome]:
    if plan.by_log_likelihood:
        pairs = [(item.prompt, f" {option}") for item in batch for option in item.problem.details["options"]]
        values = iter(engine.log_likelihoods(pairs))
        return [_compared(item, [next(values) for _ in item.problem.details["options"]]) for item in batch]
    written = engine.generate(
        [item.prompt for item in batch], sampling=plan.sampling, sample=sample, stop=plan.stop, chat=plan.chat
    )
    with ThreadPoolExecutor(_GRADERS if has_programs(plan) else 1) as pool:
        return list(pool.map(_graded, batch, written, repeat(sample), repeat(accept_unsandboxed)))


def _graded(item: Item, written: Generated, sample: int, accept_unsandboxed: bool) -> Outcome:
    outcome = Outcome(
        item.problem.id, item.problem.task, sample, item.prompt_sha256, False, written.text, written.tokens,
        written.finished,
    )  # fmt: skip
    if item.problem.kind == "program":
        tried = grade_program(item.problem, written.text, accept_unsandboxed=accept_unsandboxed)
        return replace(outcome, correct=tried.correct, extracted=tried.program, how=tried.reason)
    found = grade(item.problem, written.text)
    return replace(
        outcome, correct=found.correct, extracted=found.extracted, how=found.how, strict=found.strict,
        flexible=found.flexible,
    )  # fmt: skip


def _compared(item: Item, logliks: list[float]) -> Outcome:
    """The likeliest option is the answer; of equal ones the first, as the harness takes it.

    The right one stands last. A distractor with the same words is a wrong answer to the harness, and so here: SciQ has
    two such problems.
    """
    options = item.problem.details["options"]
    if not all(map(math.isfinite, logliks)):
        raise CheckpointError(
            f"the log-likelihoods of the options of {item.problem.id} are {', '.join(map(str, logliks))}: {BROKEN}"
        )
    best = max(range(len(options)), key=lambda place: logliks[place])
    per_byte = [value / len(option.encode()) for value, option in zip(logliks, options, strict=True)]
    best_per_byte = max(range(len(options)), key=lambda place: per_byte[place])
    return Outcome(
        item.problem.id, item.problem.task, 0, item.prompt_sha256, best == len(options) - 1,
        extracted=options[best], how="log-likelihood", logliks=tuple(logliks),
        normalised=best_per_byte == len(options) - 1,
    )  # fmt: skip
