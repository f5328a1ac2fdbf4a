"""The plan of a run: its problems, the text of every prompt, and the configuration that a resumed run has to match.

Everything that can be wrong with the arguments is found here, before a weight is loaded.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from reasonvec.errors import UsageError
from reasonvec.evaluation.benchmarks import Benchmark, BenchmarkProblem, load_benchmark
from reasonvec.evaluation.engines.interface import Sampling
from reasonvec.evaluation.prompts import (
    VARIANTS,
    PromptStyle,
    build_messages,
    log_likelihood_prompt,
    pose,
    render,
    written,
)
from reasonvec.evaluation.runs.record import FORMAT, FORMAT_VERSION
from reasonvec.evaluation.selection import Part, Selection, select
from reasonvec.weights.provenance import tool

_FEW_SHOT_STOP = "\nQ:"
"""Where a base model that continues worked examples goes on to make up the next question."""
_TOGETHER = 256
"""Prompts that are tokenized at a time: what is known of every token of all of BIG-Bench Hard takes 2 GB."""


@dataclass(frozen=True)
class Item:
    """One problem with the text that is put to the model."""

    problem: BenchmarkProblem
    prompt: str
    tokens: int
    """Of the prompt."""

    @property
    def prompt_sha256(self) -> str:
        return hashlib.sha256(self.prompt.encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Plan:
    """All of a run but its arm and its engine."""

    task: str
    """As the user named it, the variant included."""
    source: str
    """The task or file that the problems are from: for gsm8k's dev part gsm8k/train."""
    benchmark: Benchmark
    selection: Selection
    items: tuple[Item, ...]
    """Longest prompt first, then by id: the order in which they are answered and recorded."""
    style: PromptStyle
    sampling: Sampling
    by_log_likelihood: bool
    stop: tuple[str, ...]

    @property
    def recorded_task(self) -> str:
        """The task without the directories of a file of one's own: the file is known by its checksum, wherever it lies,
        and one can go on with a run from another directory."""
        return PurePath(self.task).name if self.source.endswith(".jsonl") else self.task

    @property
    def chat(self) -> bool:
        return not (self.style.bare or self.by_log_likelihood)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt and its answer together."""
        answer = max(_longest_option(item.problem) for item in self.items) if self.by_log_likelihood else 0
        return max(item.tokens for item in self.items) + (answer or self.sampling.max_new_tokens)

    def configuration(self) -> dict[str, Any]:
        """run.json but for the arm, the engine and the contamination."""
        prompt = {"name": "log-likelihood"} if self.by_log_likelihood else self.style.to_json()
        example = self.items[-1]
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "reasonvec": tool()["version"],
            "benchmark": {
                **self.benchmark.to_json(),
                "task": self.recorded_task,
                "perturbation": dict(self.benchmark.perturbation) if self.benchmark.perturbation else None,
                **self.selection.to_json(),
            },
            "prompt": {
                **prompt,
                "stop": list(self.stop),
                "example": {"id": example.problem.id, "text": example.prompt},
            },
            "sampling": {"seed": self.sampling.seed} if self.by_log_likelihood else self.sampling.to_json(),
        }


def plan_run(
    task: str, *, data: Path, style: PromptStyle, sampling: Sampling, part: Part, limit: int | None, tokenizer: Any
) -> Plan:
    """Load the benchmark, choose its problems and word every prompt with the tokenizer's chat template.

    Raises UsageError, BenchmarkError or CheckpointError: an unknown task or variant, a file that is missing or another
    one, an option that means nothing for this benchmark, a tokenizer without chat template.
    """
    check_sampling(sampling)
    name, variant = split_variant(task)
    benchmark = load_benchmark(name, data=data)
    _check_variant(task, variant, benchmark)
    benchmark, selection = select(benchmark, part=part, limit=limit, data=data)
    by_log_likelihood = _by_log_likelihood(benchmark, variant)
    if by_log_likelihood:
        _check_log_likelihood(task, style, sampling)
    way = variant if by_log_likelihood else variant or "written"
    posed = [pose(problem, variant=way, seed=sampling.seed) for problem in selection.problems]
    examples = {} if variant == "zero-shot" else benchmark.prompts
    prompts = [_prompt(problem, style, examples.get(problem.task), by_log_likelihood, tokenizer) for problem in posed]
    counts = _count_tokens(prompts, tokenizer, special=style.bare or by_log_likelihood)
    items = [Item(*each) for each in zip(posed, prompts, counts, strict=True)]
    items.sort(key=lambda item: (-item.tokens, item.problem.id))
    stop = (_FEW_SHOT_STOP,) if examples and style.bare else ()
    source = name if name.endswith(".jsonl") else benchmark.name
    return Plan(task, source, benchmark, selection, tuple(items), style, sampling, by_log_likelihood, stop)


def check_sampling(sampling: Sampling) -> None:
    """Raise UsageError for settings that contradict one another."""
    if sampling.samples < 1 or sampling.max_new_tokens < 1:
        raise UsageError(
            f"--samples {sampling.samples} and --max-new-tokens {sampling.max_new_tokens} have to be 1 or more."
        )
    if not 0 <= sampling.temperature <= 10:
        raise UsageError(f"--temperature {sampling.temperature} is not in 0 to 10.")
    if sampling.samples > 1 and not sampling.temperature:
        raise UsageError(
            f"--samples {sampling.samples} with temperature 0 gives one completion {sampling.samples} times, and an "
            f"interval that is too narrow. Set --temperature, such as 0.6, or leave --samples out."
        )


def check_context(plans: Sequence[Plan], *, context: int | None, checkpoint: str) -> None:
    """Raise UsageError where a prompt and its answer do not fit the model's context, for all plans at once: cut off at
    the front, a question would silently be another one."""
    if context is None:
        return
    wrong = []
    for plan in plans:
        room = plan.longest - plan.items[0].tokens
        long = [item for item in plan.items if item.tokens + room > context]
        if long:
            wrong.append(
                f"{plan.task}: {len(long)} of {len(plan.items)} prompts, the longest {long[0].problem.id} with "
                f"{long[0].tokens} tokens and {room} for the answer"
            )
    if wrong:
        raise UsageError(
            f"{checkpoint} reads {context} tokens at a time, and more are needed by {'; '.join(wrong)}. Lower "
            f"--max-new-tokens, or take a model with a longer context."
        )


def split_variant(task: str) -> tuple[str, str | None]:
    """The task's name and its variant: `sciq:written` is `sciq`, `written`."""
    name, colon, variant = task.rpartition(":")
    known = {each for variants in VARIANTS.values() for each in variants}
    return (name, variant) if colon and (variant in known or not task.endswith(".jsonl")) else (task, None)


def _check_variant(task: str, variant: str | None, benchmark: Benchmark) -> None:
    kinds = {problem.kind for problem in benchmark.problems}
    if "program" in kinds and len(kinds) > 1:
        raise UsageError(f"{task} mixes programs with other problems; put the programs into a file of their own.")
    if variant is None:
        return
    allowed = VARIANTS["choice"] if kinds == {"choice"} else VARIANTS["bbh"] if benchmark.prompts else ()
    if variant not in allowed:
        name = task.removesuffix(f":{variant}")
        ways = ", ".join(f"{name}:{each}" for each in allowed)
        raise UsageError(f"{name} has no variant {variant!r}. {f'It has {ways}.' if ways else 'It has none.'}")


def _by_log_likelihood(benchmark: Benchmark, variant: str | None) -> bool:
    return all(problem.kind == "choice" for problem in benchmark.problems) and not written(variant)


def _check_log_likelihood(task: str, style: PromptStyle, sampling: Sampling) -> None:
    if style.instruction or style.placement == "system":
        raise UsageError(
            f"{task} compares the options' log-likelihoods: the model writes nothing, so no prompt can make it think. "
            f"Take {task.partition(':')[0]}:written, where it answers in words, or --prompt plain."
        )
    if sampling.samples > 1 or sampling.temperature:
        raise UsageError(f"{task} compares the options' log-likelihoods; nothing is drawn. Leave --samples and "
                         f"--temperature out, or take {task.partition(':')[0]}:written.")  # fmt: skip


def _prompt(
    problem: BenchmarkProblem, style: PromptStyle, examples: str | None, by_log_likelihood: bool, tokenizer: Any
) -> str:
    if by_log_likelihood:
        return log_likelihood_prompt(problem)
    return render(build_messages(problem, style, examples=examples), style, tokenizer)


def _count_tokens(prompts: Sequence[str], tokenizer: Any, *, special: bool) -> list[int]:
    counts: list[int] = []
    for first in range(0, len(prompts), _TOGETHER):
        encoded: Mapping[str, Any] = tokenizer(list(prompts[first : first + _TOGETHER]), add_special_tokens=special)
        counts += map(len, encoded["input_ids"])
    return counts


def _longest_option(problem: BenchmarkProblem) -> int:
    """Bytes of the longest option and the space before it: no tokenizer needs more tokens than that."""
    return max(len(option.encode()) for option in problem.details["options"]) + 1
