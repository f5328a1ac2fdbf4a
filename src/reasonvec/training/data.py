"""What donors are trained on: problems with worked solutions, a part of them held out, all of them looked for in the
benchmarks. Prompts come from the one builder that evaluation uses; nothing here knows a trainer.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonvec.errors import BenchmarkError, UsageError
from reasonvec.evaluation.benchmarks import BenchmarkProblem, chosen, load_benchmark, split_problems
from reasonvec.evaluation.benchmarks.catalog import TASKS
from reasonvec.evaluation.overlap import find_overlap
from reasonvec.evaluation.prompts import PromptStyle, build_messages, render
from reasonvec.weights.files import sha256_of

KINDS = ("number", "expression", "text")
"""Kinds of answers that can be trained on. A program would have to be run, a choice is compared by likelihood."""
MOST_HELD_OUT = 200
"""Problems that validation takes where nothing else is said, and at most a tenth of the data: an accuracy is then good
to some 7 points, enough to see a training that went nowhere."""
_ANNOTATION = re.compile(r"<<[^<>\n]*>>")
_MARKED_LINE = re.compile(r"\n?####[^\n]*\s*\Z")
_SHOWN = 5


@dataclass(frozen=True)
class TrainingData:
    """The problems of one training and where they are from."""

    name: str
    """As --data named it."""
    path: Path
    sha256: str
    training: tuple[BenchmarkProblem, ...]
    held_out: tuple[BenchmarkProblem, ...]
    split: Mapping[str, Any]
    """How the two were told apart."""
    repeated: int
    """Rows that ask a held-out question again and are therefore not trained on."""

    def to_json(self) -> dict[str, Any]:
        """As training.json declares it."""
        return {
            "name": self.name, "file": self.path.name, "sha256": self.sha256,
            "rows": len(self.training) + len(self.held_out) + self.repeated, "training": len(self.training),
            "held_out": {**self.split, "questions_repeated_in_training": self.repeated},
        }  # fmt: skip


def load_training_data(
    data: str, *, data_dir: Path, held_out: int | None = None, seed: int, solutions: bool
) -> TrainingData:
    """The problems of `data`, a .jsonl file or the name of a benchmark, divided by `seed` and their ids.

    With `solutions` every problem needs a worked one. Raises BenchmarkError for data without answers, with the lines,
    UsageError for more problems held out than there are.
    """
    benchmark = load_benchmark(data, data=data_dir)
    path = Path(data) if data.endswith(".jsonl") else data_dir / next(iter(benchmark.files))
    wrong = [problem for problem in benchmark.problems if problem.kind not in KINDS]
    if wrong:
        raise BenchmarkError(f"{data} cannot be trained on: {_listed(wrong)} are of kind {wrong[0].kind}; a reward can "
                             f"be computed for {', '.join(KINDS)}.")  # fmt: skip
    bare = [problem for problem in benchmark.problems if problem.solution is None]
    if solutions and bare:
        raise BenchmarkError(
            f"{data} cannot be fine-tuned on: {_listed(bare)} have an answer and no worked solution, which is what the "
            f"donor is to learn to write. Give it in `answer`, ending with #### and the answer, or in `solution`. "
            f"GRPO needs no solutions: --model of a fine-tuned checkpoint and `train grpo`."
        )
    count = min(MOST_HELD_OUT, len(benchmark.problems) // 10) if held_out is None else held_out
    tasks = len({problem.task for problem in benchmark.problems})
    split = split_problems(benchmark.problems, seed=seed, dev_per_task=-(-count // tasks))
    kept_out = chosen(benchmark.problems, split.dev)
    questions = {_folded(problem.question) for problem in kept_out}
    rest = chosen(benchmark.problems, split.test)
    training = tuple(problem for problem in rest if _folded(problem.question) not in questions)
    if not training:
        raise UsageError(f"{data} has {len(benchmark.problems)} problems and none is left to train on. Hold fewer out.")
    return TrainingData(
        data, path, sha256_of(path), training, tuple(kept_out), split.to_json(), len(rest) - len(training)
    )


def overlap_with_benchmarks(
    data: TrainingData, *, benchmarks: Sequence[str], data_dir: Path, allowed: bool
) -> tuple[dict[str, Any], list[str]]:
    """How many problems of each benchmark stand in the training file, for the record, and what to warn of.

    Without `benchmarks`, all whose files are under `data_dir` and are not the training file itself. Raises
    BenchmarkError where a whole question stands there, unless `allowed`: such a donor cannot be measured on it.
    """
    names = list(benchmarks) or [
        name for name, task in TASKS.items()
        if task.file.sha256 != data.sha256 and (data_dir / task.file.path).exists()
    ]  # fmt: skip
    counts: dict[str, Any] = {}
    copied, partly = [], []
    for name in names:
        found = find_overlap([data.path], task=name, data=data_dir)
        problems = len(found.benchmark.problems)
        counts[name] = {"problems": problems, "training_rows": found.rows, **found.counts}
        whole = found.counts["exact"] + found.counts["normalised"]
        if whole:
            copied.append(f"{whole} of {problems:,} questions of {name}")
        elif found.problems:
            partly.append(f"{len(found.problems)} of {problems:,} questions of {name}")
    if copied and not allowed:
        raise BenchmarkError(
            f"{data.path} holds, word for word, {'; '.join(copied)}. A donor trained on them cannot be measured there, "
            f"nor can a vector made of it. Remove these rows (`reasonvec overlap` names them), or say "
            f"--allow-overlap and leave these benchmarks out; training.json then says so."
        )
    warnings = []
    if partly:
        warnings.append(f"Runs of 8 words of the training data stand in {'; '.join(partly)}. Whole questions do not. "
                        f"See which: reasonvec overlap {data.path} --task NAME")  # fmt: skip
    if copied:
        warnings.append(f"The training data holds, word for word, {'; '.join(copied)}.")
    if not names:
        warnings.append(f"No benchmark's file is under {data_dir}, so the training data was looked for in none. Name "
                        f"the directory with --data-dir.")  # fmt: skip
    return counts, warnings


def prompt_of(problem: BenchmarkProblem, style: PromptStyle) -> Any:
    """What GRPO samples from: messages, or the bare text."""
    messages = build_messages(problem, style)
    return messages[-1]["content"] if style.bare else [dict(message) for message in messages]


def answer_of(problem: BenchmarkProblem, style: PromptStyle) -> str:
    """The worked solution in the form that the prompt asks for. Behind a bare prompt it stands as it is in the data,
    after a space.

    GSM8K's calculator annotations <<3*4=12>>, which no evaluation asks for, are left out, and its last line gives way
    to the boxed answer.
    """
    solution = problem.solution or problem.gold
    if style.bare:
        return f" {solution}"
    text = _ANNOTATION.sub("", _MARKED_LINE.sub("", solution)).strip()
    if problem.kind == "text":
        ending = f"So the answer is {problem.gold}."
        return text if text.endswith(ending) else f"{text}\n{ending}".strip()
    return text if r"\boxed" in text else f"{text}\nThe final answer is \\boxed{{{problem.gold}}}.".strip()


@dataclass(frozen=True)
class Example:
    """One problem as token ids."""

    problem: BenchmarkProblem
    prompt_ids: list[int]
    answer_ids: list[int]
    """The worked solution and the end token."""


def encode(problems: Sequence[BenchmarkProblem], style: PromptStyle, tokenizer: Any) -> list[Example]:
    """Prompt and answer of each problem. They are cut into tokens apart, as they are when an answer is generated."""
    prompts = [render(build_messages(problem, style), style, tokenizer) for problem in problems]
    # a chat template writes the tokens that begin a text itself
    prompt_ids = tokenizer(prompts, add_special_tokens=style.bare)["input_ids"] if prompts else []
    answers = [answer_of(problem, style) for problem in problems]
    answer_ids = tokenizer(answers, add_special_tokens=False)["input_ids"] if answers else []
    return [
        Example(problem, list(prompt), [*answer, tokenizer.eos_token_id])
        for problem, prompt, answer in zip(problems, prompt_ids, answer_ids, strict=True)
    ]


def check_lengths(examples: Sequence[Example], *, answer_tokens: int | None, limit: int, what: str) -> None:
    """Raise BenchmarkError where a prompt and its answer, or room for `answer_tokens`, exceed `limit` tokens.

    They would be cut off without a word, and a donor would learn not to finish.
    """
    lengths = [len(e.prompt_ids) + (len(e.answer_ids) if answer_tokens is None else answer_tokens) for e in examples]
    long = [example.problem for example, length in zip(examples, lengths, strict=True) if length > limit]
    if long:
        room = "and its answer" if answer_tokens is None else f"and {answer_tokens} tokens for the answer"
        raise BenchmarkError(
            f"{_listed(long)}: the prompt {room} take up to {max(lengths)} tokens, and {what} is {limit}. They would "
            f"be cut off. Remove these rows, or set another limit."
        )


def _listed(problems: Sequence[BenchmarkProblem]) -> str:
    shown = ", ".join(f"{problem.id} ({problem.question[:40]!r})" for problem in problems[:_SHOWN])
    more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return f"{len(problems)} problem{'s' * (len(problems) > 1)}, {shown}{more},"


def _folded(question: str) -> str:
    return " ".join(question.split()).casefold()
