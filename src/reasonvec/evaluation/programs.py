"""From a completion to a program, found with Python's own parser, and from the program to its grade, in the sandbox.
Whether the sandbox holds on this host is tested before, by `sandbox.self_test`."""

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from reasonvec.errors import BenchmarkError
from reasonvec.evaluation.benchmarks import BenchmarkProblem
from reasonvec.evaluation.program_trees import definition, does_something, without_examples
from reasonvec.evaluation.sandbox import judge

_PYTHON = ("", "python", "py", "python3")
_THOUGHT = "</think>"  # what reasoning models end their notes with
_STARTS = re.compile(r"(?:from|import|def|async|class)\b|@")
_FILE = "<completion>"
_UNHEARD = ("ignore", None, Warning, re.compile(re.escape(_FILE)), 0)
"""A filter of the module `warnings`."""
_MAX_PARSED = 1 << 22
"""Characters that are parsed for one completion, over all attempts: whatever it holds, it takes seconds at most."""


@dataclass(frozen=True)
class ProgramGrade:
    """What became of a completion that should have been a program."""

    correct: bool
    program: str | None
    """What was run; None where the completion holds no program."""
    reason: str
    """`passed`, `wrong answer`, `raised NameError`, `ended early`, `timed out`, `no program` or `refused: …`."""


def grade_program(problem: BenchmarkProblem, completion: str, *, timeout_s: float = 10.0,
                  accept_unsandboxed: bool = False) -> ProgramGrade:  # fmt: skip
    """Whether the program of `completion` passes the problem's tests within `timeout_s` seconds, its start included.

    Safe from several threads at once; each grade takes two processes of up to 1 GiB. Raises BenchmarkError where the
    problem has no tests that can run, and SandboxError where a layer of the sandbox is missing.
    """
    entry_point, test = (_detail(problem, name) for name in ("entry_point", "test"))
    program = extract_program(problem, completion)
    if program is None:
        return ProgramGrade(False, None, "no program")
    verdict = judge(program, entry_point=entry_point, prompt=problem.question, test=test, timeout_s=timeout_s,
                    accept_unsandboxed=accept_unsandboxed)  # fmt: skip
    if verdict.startswith("broken tests"):
        raise BenchmarkError(
            f"{problem.id}: {verdict}. No program could pass, so a score would say nothing of the model. Tests see the "
            f"standard library and what the question defines; correct them, or leave the problem out."
        )
    return ProgramGrade(verdict == "passed", program, verdict)


def extract_program(problem: BenchmarkProblem, completion: str) -> str | None:
    """The source that defines the problem's function, as `completion` has it; None where it holds no code for it.

    A completion goes on with the question (code that ends in a signature), or defines the function anew, in fences or
    not, between words or not. The question's imports and helpers come first; after the function only what it uses is
    kept, so no examples or tests of the model's own are run. The function itself is taken as it is: where it is no
    Python, neither is the program.
    """
    text = completion.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff").rpartition(_THOUGHT)[2]
    question = problem.question.replace("\r\n", "\n").rstrip("\n") + "\n"
    entry_point = _detail(problem, "entry_point")
    for returns in (True, False):  # a function that returns something before one that does not
        if program := _Search(question, entry_point).program(text, returns=returns):
            return program
    return _Search(question, entry_point).broken(text)


def _detail(problem: BenchmarkProblem, name: str) -> str:
    value = problem.details.get(name)
    if problem.kind != "program" or not isinstance(value, str) or (name == "entry_point" and not value.isidentifier()):
        raise BenchmarkError(
            f"{problem.id} cannot be graded by running it: its `{name}` is {value!r:.60}, its kind {problem.kind}. A "
            f"problem of kind program has in its details the name of the function, `entry_point`, and Python source, "
            f"`test`, that defines check(candidate)."
        )
    return value


class _Search:
    """The search for one function in one completion."""

    def __init__(self, question: str, entry_point: str) -> None:
        self._entry_point = entry_point
        self._left = _MAX_PARSED
        self._question = question
        stub = self._parse(f"{question}    pass\n")
        # whether the question is code that a completion may go on with
        self._code = stub is not None and definition(stub, entry_point) is not None

    def program(self, text: str, *, returns: bool) -> str | None:
        """The first guess that is Python and defines the function; with `returns`, one that returns something."""
        for source, start in self._sources(text):
            if found := self._trimmed(source, start):
                tree, lines = found
                function = definition(tree, self._entry_point)
                if function and (function.end_lineno or 0) > start and does_something(function, returns=returns):
                    return without_examples(tree, lines, function, self._entry_point)
        return None

    def broken(self, text: str) -> str | None:
        """What was meant to be the function, where nothing that holds it is Python; it will fail by itself."""
        named = re.compile(rf"^[ \t]*(?:async[ ]+)?def[ ]+{self._entry_point}\b", re.MULTILINE)
        blocks = [block.content for block in _blocks(text) if block.language in _PYTHON]
        for content in (*reversed(blocks), text):
            if found := named.search(content):
                return content[found.start() :]
        goes_on = self._code and text.strip() and text.lstrip("\n")[0] in " \t"
        return self._question + text if goes_on and not self._parse(self._question + text) else None

    def _sources(self, text: str) -> Iterator[tuple[str, int]]:
        """Guesses, the likeliest first, each with the number of its lines that are the question's."""
        blocks = _blocks(text)
        before = text[: blocks[0].place] if blocks else text
        if before.strip() and before.lstrip("\n")[0] in " \t":  # no words: the question goes on, until a fence ends it
            yield from self._continued(before)
        contents = [block.content for block in blocks if block.language in _PYTHON]
        codes = [textwrap.dedent(content) for content in contents]
        defining = [code for code in codes if re.search(rf"\b{self._entry_point}\b", code) and self._defines(code)]
        if defining:  # the last one counts; helpers may stand in other blocks
            yield self._anew("\n".join(code for code in codes if self._parse(code) or code == defining[-1]))
            yield from map(self._anew, reversed(defining))
        for content in reversed(contents):
            yield from self._continued(content)
        yield from self._continued(text)
        lines = text.split("\n")
        for place, line in enumerate(lines):
            if _STARTS.match(line) and self._left > 0:
                yield self._anew("\n".join(lines[place:]))

    def _anew(self, code: str) -> tuple[str, int]:
        """Code that defines the function itself, after what the question defines."""
        before = f"{self._question}    pass\n\n" if self._code else ""
        return before + code, before.count("\n")

    def _continued(self, body: str) -> Iterator[tuple[str, int]]:
        """The question with its function's body: as it is, with the first line's indentation lost, with all lost."""
        if not self._code:
            return
        start = self._question.count("\n")
        yield self._question + body, start
        yield f"{self._question}    {body.lstrip()}", start
        if found := self._trimmed(textwrap.dedent(body), 0):
            yield self._question + textwrap.indent("\n".join(found[1]), "    "), start

    def _defines(self, code: str) -> bool:
        found = self._trimmed(code, 0)
        return found is not None and definition(found[0], self._entry_point) is not None

    def _trimmed(self, source: str, start: int) -> tuple[ast.Module, list[str]] | None:
        """As much of `source` as is Python, up to a line of the outermost level after the first `start` lines."""
        lines = source.split("\n")
        while True:
            error: list[int] = []
            if tree := self._parse("\n".join(lines), error):
                return tree, lines
            if not error:
                return None
            outermost = [place for place in range(start, min(error[0], len(lines))) if lines[place][:1].strip()]
            if not outermost or outermost[-1] == 0:
                return None
            del lines[outermost[-1] :]

    def _parse(self, source: str, error: list[int] | None = None) -> ast.Module | None:
        """The tree of `source`; None where it is no Python, with the number of the line appended to `error`."""
        self._left -= len(source)
        if self._left < 0:
            return None
        # Python warns of invalid escapes, and callers may make warnings errors: this filter is for our name alone
        if _UNHEARD not in warnings.filters:
            warnings.filterwarnings("ignore", module=re.escape(_FILE))
        try:
            return ast.parse(source, _FILE)
        except SyntaxError as fault:
            if error is not None:
                error.append(fault.lineno or 1)
        except (ValueError, RecursionError, MemoryError):  # a null character; nested too deep for the parser
            pass
        return None


@dataclass(frozen=True)
class _Block:
    """The inside of one fence; of an unclosed one, all that follows."""

    language: str
    content: str
    place: int
    """Where its opening line begins."""


def _blocks(text: str) -> list[_Block]:
    # by lines rather than with an expression: a long line of blanks would take one a quadratic time
    blocks: list[_Block] = []
    inside: list[str] = []
    place = ticks = begins = 0
    language = ""
    for line in text.split("\n"):
        fence = line.strip()
        length = len(fence) - len(fence.lstrip("`"))
        if ticks:
            if length >= ticks and length == len(fence):
                blocks.append(_Block(language, "\n".join(inside), begins))
                ticks = 0
            else:
                inside.append(line)
        elif length >= 3 and "`" not in fence[length:]:
            ticks, begins, inside = length, place, []
            language = (fence[length:].split() or [""])[0].lower()
        place += len(line) + 1
    if ticks:
        blocks.append(_Block(language, "\n".join(inside), begins))
    return blocks
