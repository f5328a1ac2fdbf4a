"""Measuring: one arm on benchmarks, every outcome on the disk before the next batch begins.

The public function is `evaluate`; the command of that name is this function.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

from reasonvec.errors import MissingExtraError, OutputError, RunError, UsageError
from reasonvec.evaluation.arm import Arm, open_arm
from reasonvec.evaluation.comparison import RunSummary, summarise
from reasonvec.evaluation.contamination import contamination, declared_training_data, warnings_of
from reasonvec.evaluation.engines import harness
from reasonvec.evaluation.engines.interface import Engine, Generated, Sampling
from reasonvec.evaluation.grading import grade
from reasonvec.evaluation.planning import Item, Plan, check_context, plan_run
from reasonvec.evaluation.programs import grade_program
from reasonvec.evaluation.prompts import Placement, prompt_style
from reasonvec.evaluation.runs import Outcome, Recorder, load_run, open_run
from reasonvec.evaluation.runs.record import CONFIGURATION, read_configuration
from reasonvec.evaluation.sandbox import require, self_test
from reasonvec.evaluation.selection import Part
from reasonvec.weights.live import Attachment, attached

EngineName = Literal["transformers", "vllm"]
Progress = Callable[[str, int, int], None]
"""(task, problems answered, problems in all), after every batch."""
_GRADERS = 2
"""Programs that are tried at the same time."""


@dataclass(frozen=True)
class Evaluation:
    """One run that is complete."""

    out: Path
    task: str
    summary: RunSummary
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "out": str(self.out),
            "task": self.task,
            "summary": self.summary.to_json(),
            "warnings": list(self.warnings),
        }


def evaluate(
    checkpoint: str | Path,
    *,
    tasks: Sequence[str],
    out: str | Path,
    data: Path = Path("data"),
    vector: str | Path | None = None,
    alpha: float | None = None,
    prompt: str = "plain",
    placement: Placement = "user",
    bare: bool = False,
    part: Part = "test",
    limit: int | None = None,
    sampling: Sampling | None = None,
    engine: EngineName = "transformers",
    batch_size: int | None = None,
    training_data: Sequence[Path] = (),
    accept_unsandboxed: bool = False,
    resume: bool = False,
    offline: bool = False,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Measure one arm, `checkpoint` with `alpha` times `vector` added, on each of `tasks`, and keep every outcome.

    One task gives one run, the directory `out`; several give one each, in directories of it. Arguments, data, prompts,
    vector and sandbox are checked before a weight is loaded, the context and earlier runs before the first answer.
    `batch_size` None takes what fits; a run that is resumed keeps the size it was begun with.

    Raises UsageError, BenchmarkError, CheckpointError, VectorError, IncompatibleError, SandboxError, OutputError, and
    RunError where a run to be resumed was begun with another configuration, or all completions of a run are empty.
    """
    _check_engine(engine)
    style, sampling = prompt_style(prompt, placement=placement, bare=bare), sampling or Sampling()
    runs = _destinations(Path(out), tasks)
    _check_free(runs.values(), resume=resume)
    arm = open_arm(checkpoint, vector=vector, alpha=alpha, offline=offline)
    tokenizer = harness.load_tokenizer(arm.checkpoint.path)
    plans = {
        runs[task]: plan_run(
            task, data=data, style=style, sampling=sampling, part=part, limit=limit, tokenizer=tokenizer
        )
        for task in tasks
    }
    check_context(list(plans.values()), context=_context(arm.checkpoint.config), checkpoint=str(checkpoint))
    sandbox = _sandbox(plans.values(), accept_unsandboxed=accept_unsandboxed)
    training = tuple(dict.fromkeys([*training_data, *declared_training_data(arm)]))
    records = {path: _contamination(plan, training, data) for path, plan in plans.items()}
    described = arm.to_json()
    batch_size = batch_size or _begun_with(runs.values())
    longest = max(plan.longest for plan in plans.values()) + 1  # a token that begins every text, with some tokenizers
    evaluations = []
    with _opened(engine, arm, batch_size=batch_size, longest=longest, seed=sampling.seed, scratch=Path(out)) as opened:
        loaded, attachment = opened
        notes = attachment.warnings if attachment else arm.warnings
        described["realised_alpha"] = attachment.realised_alpha if attachment else None
        for path, plan in plans.items():
            configuration = {
                **plan.configuration(),
                "arm": described,
                "engine": loaded.describe(),
                "contamination": records[path],
                "sandbox": sandbox if _has_programs(plan) else None,
            }
            with open_run(path, configuration, resume=resume) as recorder:
                _answer(plan, loaded, recorder, accept_unsandboxed=accept_unsandboxed, progress=progress)
                evaluations.append(_finished(plan, recorder, configuration["contamination"], notes))
    return evaluations


def _finished(plan: Plan, recorder: Recorder, overlap: dict[str, Any] | None, notes: tuple[str, ...]) -> Evaluation:
    """Count the run and write the summary. Raises RunError where the model answered nothing at all."""
    path = recorder.path
    summary = summarise(load_run(path))
    recorder.finish(summary.to_json())
    warnings = notes + warnings_of(overlap, task=plan.task, problems=summary.problems)
    if summary.empty == summary.completions:
        raise RunError(
            f"every one of the {summary.completions} completions of {plan.task} is empty: the model ended at once. "
            f"They count as wrong and are kept in {path}; but look at the prompt in {path / CONFIGURATION} first: a "
            f"wrong chat template does this too, and so does an alpha that is far too large."
        )
    if summary.empty:
        warnings += (
            f"{summary.empty} of the {summary.completions} completions of {plan.task} are empty. They count as wrong.",
        )
    return Evaluation(path, plan.task, summary, warnings)


def _answer(
    plan: Plan, engine: Engine, recorder: Recorder, *, accept_unsandboxed: bool, progress: Progress | None
) -> None:
    """Answer what is not yet recorded, batch by batch; batches are the same whether or not the run was killed, since
    in floating point a completion may depend on its neighbours."""
    done = {(outcome.id, outcome.sample) for outcome in recorder.done}
    size = engine.batch_size
    for first in range(0, len(plan.items), size):
        batch = plan.items[first : first + size]
        for sample in range(plan.sampling.samples):
            missing = [item for item in batch if (item.problem.id, sample) not in done]
            if missing:
                outcomes = _outcomes(plan, batch, engine, sample, accept_unsandboxed=accept_unsandboxed)
                recorder.append(outcome for outcome in outcomes if (outcome.id, sample) not in done)
        if progress:
            progress(plan.task, min(first + size, len(plan.items)), len(plan.items))


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
    with ThreadPoolExecutor(_GRADERS if _has_programs(plan) else 1) as pool:
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
    """The likeliest option is the answer; of equal ones the first, as the harness takes it."""
    options = item.problem.details["options"]
    best = max(range(len(options)), key=lambda place: logliks[place])
    per_byte = [value / len(option.encode()) for value, option in zip(logliks, options, strict=True)]
    best_per_byte = max(range(len(options)), key=lambda place: per_byte[place])
    return Outcome(
        item.problem.id, item.problem.task, 0, item.prompt_sha256, options[best] == item.problem.gold,
        extracted=options[best], how="log-likelihood", logliks=tuple(logliks),
        normalised=options[best_per_byte] == item.problem.gold,
    )  # fmt: skip


@contextlib.contextmanager
def _opened(
    name: EngineName, arm: Arm, *, batch_size: int | None, longest: int, seed: int, scratch: Path
) -> Iterator[tuple[Engine, Attachment | None]]:
    """The arm, loaded; its vector is attached in memory, and for vLLM, which reads paths alone, written beside the runs
    for as long as they last."""
    if name == "vllm":
        from reasonvec.evaluation.engines.vllm import open_engine  # which cannot be imported without vLLM

        with open_engine(arm, longest=longest, batch_size=batch_size, seed=seed, scratch=scratch) as engine:
            yield engine, None
        return
    model, tokenizer = harness.load(arm.checkpoint.path)
    if arm.vector is None:
        yield harness.HarnessEngine(model, tokenizer, batch_size=batch_size, longest=longest), None
        return
    with attached(model, arm.vector, alpha=arm.alpha or 0.0) as attachment:
        yield harness.HarnessEngine(model, tokenizer, batch_size=batch_size, longest=longest), attachment


def _check_engine(name: EngineName) -> None:
    if name == "vllm" and find_spec("vllm") is None:
        raise MissingExtraError('--engine vllm needs vLLM, which is not installed: pip install "reasonvec[vllm]"')


def _destinations(out: Path, tasks: Sequence[str]) -> dict[str, Path]:
    if not tasks:
        raise UsageError("No task is named. --task takes a benchmark's name or a .jsonl file.")
    if len(tasks) == 1:
        return {tasks[0]: out}
    names = [task.removesuffix(".jsonl").rsplit("/", 1)[-1] if ".jsonl" in task else task for task in tasks]
    names = [name.replace("/", "-").replace(":", "-").replace(".jsonl", "") for name in names]
    if len(set(names)) < len(names):
        raise UsageError(f"--task names {', '.join(tasks)}, of which two would be written to one directory of {out}.")
    return {task: out / name for task, name in zip(tasks, names, strict=True)}


def _check_free(paths: Any, *, resume: bool) -> None:
    taken = [str(path) for path in paths if path.exists() and (path.is_file() or any(path.iterdir()))]
    if taken and not resume:
        raise OutputError(
            f"{', '.join(taken)} {'exists' if len(taken) == 1 else 'exist'} already. Nothing that was measured is "
            f"overwritten: go on with --resume, or name another directory."
        )


def _begun_with(paths: Any) -> int | None:
    """The batch size of a run that is resumed: it decides which prompts are answered together."""
    for path in paths:
        if (path / CONFIGURATION).is_file():
            size = read_configuration(path)["engine"].get("batch_size")
            return size if isinstance(size, int) and size > 0 else None
    return None


def _has_programs(plan: Plan) -> bool:
    return any(item.problem.kind == "program" for item in plan.items)


def _sandbox(plans: Any, *, accept_unsandboxed: bool) -> dict[str, Any] | None:
    """What the sandbox's self-test found, where programs are to be run. Raises SandboxError where it cannot hold."""
    if not any(_has_programs(plan) for plan in plans):
        return None
    report = self_test()
    require(report, accept_unsandboxed=accept_unsandboxed)
    return {**report.to_json(), "accepted_without": accept_unsandboxed}


def _contamination(plan: Plan, training: Sequence[Path], data: Path) -> dict[str, Any] | None:
    measured = frozenset(item.problem.id for item in plan.items)
    return contamination(training, task=plan.source, measured=measured, data=data)


def _context(config: Mapping[str, Any]) -> int | None:
    """Tokens that a model reads at a time, by its configuration; None where that does not say."""
    inner = config.get("text_config")
    for document in (config, inner if isinstance(inner, dict) else {}):
        for name in ("max_position_embeddings", "n_positions", "n_ctx"):
            if isinstance(document.get(name), int):
                return int(document[name])
    return None
