"""What a model is asked: one builder for evaluation, training and demo, so that nothing but the arm differs.

Knows benchmarks' problems and tokenizers' chat templates; not what is generated from a prompt, nor how it is graded.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from reasonvec.errors import BenchmarkError, CheckpointError, UsageError
from reasonvec.evaluation.benchmarks import BenchmarkProblem

THINK = "Think step by step."
"""The paper's words, arXiv:2509.01363."""
SYSTEM = "You are a helpful assistant."
"""With --placement system every arm gets it, the plain one too: else the instruction would also take away whatever
system message the template has of its own, and two things would differ."""
MOST_ADDED = 100_000
"""Characters that a chat template may put around messages; those in use put some thousand."""
DATE = datetime(2024, 7, 26)
"""The day on which every prompt is asked; the one that Llama 3's templates fall back to."""
_DIRECTIVES = ("%Y", "%y", "%m", "%B", "%b", "%d", "%-d", "%e", "%A", "%a", "%j", "%H", "%I", "%M", "%S", "%f", "%p")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Placement = Literal["user", "system"]
Message = Mapping[str, str]
"""`role` and `content`, as chat templates take them."""

VARIANTS: Mapping[str, tuple[str, ...]] = {
    "choice": ("closed-book", "written", "written-closed-book"),
    "bbh": ("zero-shot",),
}
"""Other ways to ask, named TASK:VARIANT. Multiple choice is compared by log-likelihood with the supporting text unless
one is named; BIG-Bench Hard gets its own three worked examples."""

_FORMATS = {
    "number": "Put the final answer in \\boxed{}.",
    "expression": "Put the final answer in \\boxed{}.",
    "text": 'End with "So the answer is" and the answer.',
    "choice": 'End with "So the answer is" and the letter.',
}
_PROGRAM = "Complete this Python function. Answer with the whole function in one block of code."


@dataclass(frozen=True)
class PromptStyle:
    """How every problem of a run is put, apart from the problem itself."""

    instruction: str | None = None
    """Words before every question; None for the plain prompt."""
    placement: Placement = "user"
    """Whether the instruction opens the user's message or closes the system's."""
    bare: bool = False
    """Give the text of the problem alone, to be continued: no chat template, no sentence on the answer's form."""

    @property
    def name(self) -> str:
        """plain, think or custom."""
        return {None: "plain", THINK: "think"}.get(self.instruction, "custom")

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "instruction": self.instruction,
            "placement": self.placement,
            "chat_template": not self.bare,
        }


def prompt_style(prompt: str, *, placement: Placement = "user", bare: bool = False) -> PromptStyle:
    """The style that --prompt names: plain, think, or the instruction itself."""
    instruction = {"plain": None, "think": THINK}.get(prompt, prompt)
    if instruction is not None and not instruction.strip():
        raise UsageError("--prompt is empty. Say plain, think, or the words to put before every question.")
    try:
        (instruction or "").encode()
    except UnicodeEncodeError:
        raise UsageError("--prompt is no text: it holds bytes that are no UTF-8.") from None
    if bare and placement == "system":
        raise UsageError("--bare gives the problem's text alone, so there is no system message: leave --placement out.")
    return PromptStyle(instruction, placement, bare)


def pose(problem: BenchmarkProblem, *, variant: str | None, seed: int) -> BenchmarkProblem:
    """The problem as this variant puts it: options of a written choice are shuffled, by seed and id alone, and listed
    in `details["options"]`; without `closed-book` the supporting text stands before the question.

    Raises BenchmarkError for a choice without distractors.
    """
    if problem.kind != "choice":
        return problem
    distractors = problem.details.get("distractors")
    texts = isinstance(distractors, list) and all(isinstance(text, str) and text.strip() for text in distractors)
    if not texts or not distractors:
        raise BenchmarkError(
            f"{problem.id} is a choice, and its details hold no `distractors`, a list of texts. Without them there is "
            f"nothing to choose from; give them, or make it a problem of kind text."
        )
    options = [*distractors, problem.gold]  # in the harness's order
    if len(options) > len(LETTERS):
        raise BenchmarkError(f"{problem.id} has {len(options)} options, more than there are letters.")
    if written(variant):
        random.Random(f"reasonvec-options/{seed}/{problem.id}").shuffle(options)  # noqa: S311  (no secret)
    support = str(problem.details.get("support") or "").strip()
    if variant in ("closed-book", "written-closed-book"):
        support = ""
    return replace(problem, details={**problem.details, "options": options, "support": support})


def written(variant: str | None) -> bool:
    """Whether a multiple choice is answered in words rather than by log-likelihood."""
    return variant in ("written", "written-closed-book")


def build_messages(problem: BenchmarkProblem, style: PromptStyle, *, examples: str | None = None) -> list[Message]:
    """The conversation before the answer, of a problem that `pose` put; `examples` are worked ones to show first."""
    body = (
        problem.question if style.bare and not examples and problem.kind != "choice" else _question(problem, examples)
    )
    if not style.bare and not examples and problem.kind in _FORMATS:
        body = f"{body}\n\n{_FORMATS[problem.kind]}"
    if style.placement == "user":
        return [{"role": "user", "content": f"{style.instruction} {body}" if style.instruction else body}]
    system = f"{SYSTEM} {style.instruction}" if style.instruction else SYSTEM
    return [{"role": "system", "content": system}, {"role": "user", "content": body}]


def render(messages: Sequence[Message], style: PromptStyle, tokenizer: Any) -> str:
    """The text that the model continues.

    A template that writes today's date gets `DATE`: else an arm would differ from one that was measured yesterday.
    Raises CheckpointError where the tokenizer has no chat template, or one that refuses these messages or leaves one
    out: without the system message, as tools do in silence, the arm would be another one.
    """
    if style.bare:
        return messages[-1]["content"]
    check_template(tokenizer)
    try:
        text = str(tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=False, **_dated(tokenizer.chat_template)
        ))  # fmt: skip
    except Exception as error:  # noqa: BLE001  (a template is a program of a stranger: whatever it raises)
        roles = " and ".join(message["role"] for message in messages)
        reason = str(error)[:200].rstrip(".") or type(error).__name__
        raise CheckpointError(
            f"The chat template of {tokenizer.name_or_path} does not take messages of {roles}: {reason}."
            f"{_way_out(messages)}"
        ) from None
    if len(text) > MOST_ADDED + sum(len(message["content"]) for message in messages):
        raise CheckpointError(
            f"The chat template of {tokenizer.name_or_path} makes {len(text):,} characters of a question of "
            f"{len(messages[-1]['content']):,}. None needs that many.{_way_out(messages)}"
        )
    for message in messages:
        if message["content"].strip() not in text:
            raise CheckpointError(
                f"The chat template of {tokenizer.name_or_path} leaves out, or changes, the message of the "
                f"{message['role']}, so the model would be asked something else than it is graded on."
                f"{_way_out(messages)}"
            )
    return text


def check_template(tokenizer: Any) -> None:
    """Raise CheckpointError where the tokenizer has no chat template."""
    if not tokenizer.chat_template:
        raise CheckpointError(
            f"{tokenizer.name_or_path} has no chat template, so there is no telling how it is asked. A base model "
            f"continues text: measure it with --bare, every arm alike. If it is a chat model, its template was lost; "
            f"copy chat_template.jinja, or tokenizer_config.json, from where the model came from."
        )


def log_likelihood_prompt(problem: BenchmarkProblem) -> str:
    """The text before each option, in the words of the harness's `sciq` task, whose scores others report."""
    support = f"{problem.details['support']}\n" if problem.details.get("support") else ""
    return f"{support}Question: {problem.question}\nAnswer:"


def _dated(template: object) -> dict[str, str]:
    """For templates that write a date, the same one with `strftime_now` replaced: functions are not let in."""
    if not isinstance(template, str) or "strftime_now" not in template:
        return {}
    replaced = "".join(f" | replace('{each}', '{DATE.strftime(each)}')" for each in _DIRECTIVES)
    # the newline is trimmed after a block, rather than one that the template begins with
    return {
        "chat_template": f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}\n{template}"
    }


def _way_out(messages: Sequence[Message]) -> str:
    if messages[0]["role"] != "system":
        return " Mend the template, or measure every arm with --bare."
    return " With --placement user the instruction goes into the user's message."


def _question(problem: BenchmarkProblem, examples: str | None) -> str:
    if examples:
        return f"{examples.strip()}\n\nQ: {problem.question}\nA: Let's think step by step.\n"
    if problem.kind == "program" and "entry_point" in problem.details:
        return f"{_PROGRAM}\n\n```python\n{problem.question.strip()}\n```"
    if problem.kind == "choice":
        options = problem.details["options"]
        lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False)]
        support = f"{problem.details['support']}\n\n" if problem.details.get("support") else ""
        return f"{support}{problem.question}\n" + "\n".join(lines)
    return problem.question
