"""Measuring: one arm on benchmarks, every outcome on the disk before the next batch begins.

The public function is `evaluate`; the command of that name is this function.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from reasonvec.errors import MissingExtraError, RunError
from reasonvec.evaluation.answering import Progress, answer, has_programs
from reasonvec.evaluation.arm import Arm, open_arm
from reasonvec.evaluation.comparison import RunSummary, summarise
from reasonvec.evaluation.comparison.arms import applied
from reasonvec.evaluation.contamination import contamination, declared_training_data, missing_warnings, warnings_of
from reasonvec.evaluation.destinations import sweep
from reasonvec.evaluation.engines import harness
from reasonvec.evaluation.engines.interface import Engine, Sampling
from reasonvec.evaluation.planning import Plan, check_context, plan_run
from reasonvec.evaluation.prompts import Placement, prompt_style
from reasonvec.evaluation.runs import Recorder, load_run, open_run
from reasonvec.evaluation.runs.record import CONFIGURATION, check_place, check_run, read_configuration
from reasonvec.evaluation.sandbox import require, self_test
from reasonvec.evaluation.selection import Part
from reasonvec.weights.live import attached

EngineName = Literal["transformers", "vllm"]


_MUCH_CUT_OFF = 0.2
"""Share of completions cut off from which the score is about length."""


@dataclass(frozen=True)
class Evaluation:
    """One run that is complete."""

    out: Path
    task: str
    summary: RunSummary
    warnings: tuple[str, ...]
    searched: bool
    """Whether training data was declared, and looked through for the problems."""
    applied: tuple[int, int] | None = None
    """Of changed problems: to how many of how many the operator applies."""

    def to_json(self) -> dict[str, Any]:
        return {
            "out": str(self.out),
            "task": self.task,
            "summary": self.summary.to_json(),
            "warnings": list(self.warnings),
            "training_data_searched": self.searched,
            "applies_to": self.applied[0] / self.applied[1] if self.applied else None,
        }


def evaluate(
    checkpoint: str | Path,
    *,
    tasks: Sequence[str],
    out: str | Path,
    data: Path = Path("data"),
    vector: str | Path | None = None,
    alpha: float | Sequence[float] | None = None,
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

    One task gives one run, the directory `out`; several give one each, in directories of it. Several alphas are arms of
    their own, for which the model is loaded once; `out` then holds `{alpha}`. Arguments, data, prompts,
    vector, sandbox and earlier runs are checked before a weight is loaded, but for what only the loaded model tells.
    `batch_size` None takes what fits; a run that is resumed keeps the size it was begun with.

    Raises UsageError, BenchmarkError, CheckpointError, VectorError, IncompatibleError, SandboxError, OutputError, and
    RunError where a run to be resumed was begun with another configuration or, once all tasks are measured, where all
    completions of a run are empty.
    """
    _check_engine(engine)
    style, sampling = prompt_style(prompt, placement=placement, bare=bare), sampling or Sampling()
    alphas = tuple(alpha) or (None,) if isinstance(alpha, Sequence) else (alpha,)
    places = sweep(out, tasks, alphas)
    for path in (path for runs in places.values() for path in runs.values()):
        check_place(path, resume=resume)
    arms = {each: open_arm(checkpoint, vector=vector, alpha=each, offline=offline) for each in alphas}
    arm = arms[alphas[0]]
    tokenizer = harness.load_tokenizer(arm.checkpoint.path)
    plans = {
        task: plan_run(task, data=data, style=style, sampling=sampling, part=part, limit=limit, tokenizer=tokenizer)
        for task in tasks
    }
    check_context(list(plans.values()), context=_context(arm.checkpoint.config), checkpoint=str(checkpoint))
    sandbox = _sandbox(plans.values(), accept_unsandboxed=accept_unsandboxed)
    declared = declared_training_data(arm, named=training_data, data=data)
    training = tuple(dict.fromkeys([*training_data, *declared.files]))
    common = {
        task: {
            "contamination": _contamination(plan, training, declared.missing, data),
            "sandbox": sandbox if has_programs(plan) else None,
        }
        for task, plan in plans.items()
    }
    described = arm.to_json()
    records = {each: {**described, **({} if arm.vector is None else {"alpha": arms[each].alpha})} for each in alphas}
    for each, runs in places.items():
        planned = {task: {**plan.configuration(), "arm": records[each], **common[task]} for task, plan in plans.items()}
        _check_runs(runs, planned, resume=resume, unknown=("engine", "arm.realised_alpha"))
    batch_size = batch_size or _begun_with(path for runs in places.values() for path in runs.values())
    longest = max(plan.longest for plan in plans.values()) + 1  # a token that begins every text, with some tokenizers
    model = harness.load(arm.checkpoint.path, to_change=arm.vector is not None) if engine == "transformers" else None
    evaluations: list[Evaluation] = []
    for each, runs in places.items():
        arm = arms[each]
        with _opened(arm, model, batch_size=batch_size, longest=longest, seed=sampling.seed, scratch=runs) as opened:
            loaded, added = opened
            batch_size = loaded.batch_size
            # what is attached in memory has no tokenizer to compare; what is only planned has not been rounded
            told = [*arm.warnings, *(added.warnings if added else ()), *missing_warnings(declared)]
            record = {**records[each], "realised_alpha": added.realised_alpha if added else None}
            configurations = {
                task: {**plan.configuration(), "arm": record, "engine": loaded.describe(), **common[task]}
                for task, plan in plans.items()
            }
            _check_runs(runs, configurations, resume=resume)
            for task, plan in plans.items():
                with open_run(runs[task], configurations[task], resume=resume) as recorder:
                    answer(plan, loaded, recorder, accept_unsandboxed=accept_unsandboxed, progress=progress)
                    overlap = common[task]["contamination"]
                    evaluations.append(_finished(plan, recorder, overlap, tuple(dict.fromkeys(told))))
    _refuse_empty(evaluations)
    return evaluations


def _check_runs(
    runs: Mapping[str, Path], configurations: Mapping[str, Any], *, resume: bool, unknown: Sequence[str] = ()
) -> None:
    for task, configuration in configurations.items():
        check_run(runs[task], configuration, resume=resume, unknown=unknown)


def _finished(plan: Plan, recorder: Recorder, overlap: dict[str, Any] | None, told: tuple[str, ...]) -> Evaluation:
    """Count the run and write the summary."""
    summary = summarise(load_run(recorder.path))
    recorder.finish(summary.to_json())
    warnings = told + warnings_of(overlap, task=plan.task, problems=summary.problems)
    if (summary.cut_off or 0) >= _MUCH_CUT_OFF:
        warnings += (
            f"{summary.cut_off:.0%} of the completions of {plan.task} were cut off at --max-new-tokens "
            f"{plan.sampling.max_new_tokens}, most before they came to an answer. Allow more, in every arm alike.",
        )
    if summary.empty:
        warnings += (
            f"{summary.empty} of the {summary.completions} completions of {plan.task} are empty. They count as wrong.",
        )
    return Evaluation(
        recorder.path, plan.task, summary, warnings, overlap is not None, applied(plan.benchmark.perturbation)
    )


def _refuse_empty(evaluations: Sequence[Evaluation]) -> None:
    """Raise RunError where the model answered nothing at all, once everything is measured and kept."""
    silent = [each for each in evaluations if each.summary.empty == each.summary.completions]
    if silent:
        others = [each for each in evaluations if each not in silent]
        more = f" The others are whole: reasonvec stats {' '.join(str(each.out) for each in others)}" if others else ""
        runs = "; ".join(f"all {each.summary.completions} completions of {each.task} ({each.out})" for each in silent)
        raise RunError(
            f"{runs} are empty: the model ended at once. They count as wrong and are kept; but look at the prompt in "
            f"{silent[0].out / CONFIGURATION} first: a wrong chat template does this too, and so does an alpha that is "
            f"far too large.{more}"
        )


@dataclass(frozen=True)
class _Added:
    """What came of adding the vector, in memory or on disk."""

    realised_alpha: float | None
    warnings: tuple[str, ...]


@contextlib.contextmanager
def _opened(
    arm: Arm,
    model: harness.Loaded | None,
    *,
    batch_size: int | None,
    longest: int,
    seed: int,
    scratch: Mapping[str, Path],
) -> Iterator[tuple[Engine, _Added | None]]:
    """The engine of one arm: its vector is attached to the loaded model, and for vLLM, which reads paths alone, written
    beside the runs for as long as they last."""
    if model is None:
        from reasonvec.evaluation.engines.vllm import open_engine  # which cannot be imported without vLLM

        place = next(iter(scratch.values()))
        with open_engine(arm, longest=longest, batch_size=batch_size, seed=seed, scratch=place) as (engine, made):
            realised = made.realised.overall if made and made.realised else None
            yield engine, _Added(realised, made.warnings) if made else None
        return
    if arm.vector is None:
        yield harness.HarnessEngine(*model, batch_size=batch_size, longest=longest), None
        return
    with attached(model[0], arm.vector, alpha=arm.alpha or 0.0) as attachment:
        added = _Added(attachment.realised_alpha, attachment.warnings)
        yield harness.HarnessEngine(*model, batch_size=batch_size, longest=longest), added


def _check_engine(name: EngineName) -> None:
    if name == "vllm" and find_spec("vllm") is None:
        raise MissingExtraError('--engine vllm needs vLLM, which is not installed: pip install "reasonvec[vllm]"')


def _begun_with(paths: Any) -> int | None:
    """The batch size of a run that is resumed: it decides which prompts are answered together."""
    for path in paths:
        if (path / CONFIGURATION).is_file():
            size = read_configuration(path)["engine"].get("batch_size")
            return size if isinstance(size, int) and size > 0 else None
    return None


def _sandbox(plans: Any, *, accept_unsandboxed: bool) -> dict[str, Any] | None:
    """What the sandbox's self-test found, where programs are to be run. Raises SandboxError where it cannot hold."""
    if not any(has_programs(plan) for plan in plans):
        return None
    report = self_test()
    require(report, accept_unsandboxed=accept_unsandboxed)
    return {**report.to_json(), "accepted_without": accept_unsandboxed}


def _contamination(plan: Plan, training: Sequence[Path], missing: Sequence[str], data: Path) -> dict[str, Any] | None:
    measured = frozenset(item.problem.id for item in plan.items)
    return contamination(training, task=plan.source, measured=measured, data=data, missing=missing)


def _context(config: Mapping[str, Any]) -> int | None:
    """Tokens that a model reads at a time, by its configuration; None where that does not say."""
    inner = config.get("text_config")
    for document in (config, inner if isinstance(inner, dict) else {}):
        for name in ("max_position_embeddings", "n_positions", "n_ctx"):
            if isinstance(document.get(name), int):
                return int(document[name])
    return None
