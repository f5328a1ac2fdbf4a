"""The process that runs a problem's tests: each call of the candidate goes to the worker, each answer is compared here.
It is confined as the worker is, since the tests of a file of one's own are a stranger's program too."""

import builtins
import random
from collections.abc import Mapping
from typing import Any

from reasonvec.evaluation.sandbox.wire import CONFINED, Lines, NotPlainError, PipeClosedError, decode, encode, send

_CONTROL = ("StopIteration", "StopAsyncIteration", "AssertionError")
"""Raised by a program these would end a test's loop early, as if all of it had passed, or look like a verdict."""


def run(settings: Mapping[str, Any]) -> None:
    """Write the verdict, a line: `passed`, `wrong answer`, `raised NameError`, `refused: …`, `broken tests: …`."""
    requests, replies, report = settings["descriptors"]
    text = _verdict(settings, Candidate(requests, replies))
    send(report, text.encode("ascii", "replace") + b"\n")


class Stopped(BaseException):
    """The worker is lost, or said what it may not say. Not an Exception, which tests may catch."""


class Candidate:
    """The function under test, as the tests see it. Arguments and answers are plain values, copied."""

    def __init__(self, requests: int, replies: int) -> None:
        self._requests, self._lines = requests, Lines(replies)
        self.calls = 0
        self.fault: str | None = None
        """Why nothing can pass any more, whatever the tests make of it."""
        self.raised: list[tuple[BaseException, str]] = []
        """The program's own exceptions, as they are raised here, each with the name of its type."""

    def define(self) -> None:
        """Wait until the program is defined; what that raises is raised here."""
        try:
            line = self._lines.next()
        except PipeClosedError:
            line = b"not confined: the process did not start"
        if line != CONFINED:
            self._stop(line.decode("utf-8", "replace"))
        self._answer()

    def __call__(self, *positional: Any, **named: Any) -> Any:
        """What the function returns. An exception of a built-in type, or derived from one, is raised as that type."""
        self.calls += 1
        try:
            line = encode((positional, named))
        except NotPlainError as error:
            raise TypeError(f"the tests pass {error}, which is not sent to a program") from None
        if not self.fault and self._lines.more():
            self._said_unasked()
        try:
            send(self._requests, line)
        except BrokenPipeError:
            self._stop("ended early")
        return self._answer()

    def _answer(self) -> Any:
        if self.fault:
            raise Stopped
        try:
            kind, *content = decode(self._lines.next())
            if kind == "value":
                (value,) = content
                return value
            if kind == "raised":
                name, built_in = content
            else:
                (name,) = content
        except PipeClosedError:
            self._stop("ended early")
        except (ValueError, TypeError) as error:
            self._stop(f"refused: {_plain(str(error))}")
        if kind != "raised":
            self._stop(f"refused: the answer is {_plain(name)}")
        exception = _exception(_plain(name), built_in)
        self.raised.append((exception, _plain(name)))
        raise exception

    def _said_unasked(self) -> None:
        try:
            self._lines.next()
        except PipeClosedError:
            self._stop("ended early")
        except ValueError:
            pass
        self._stop("refused: an answer that nobody asked for")

    def _stop(self, fault: str) -> None:
        self.fault = fault
        raise Stopped


def _verdict(settings: Mapping[str, Any], candidate: Candidate) -> str:
    random.seed(0)  # some tests draw their arguments: every program is asked the same
    try:
        names = _helpers(settings["prompt"])
        names[settings["entry_point"]] = candidate
        candidate.define()
        exec(compile(settings["test"], "tests", "exec"), names)  # noqa: S102 (confined, as the worker is)
        if "check" in names:
            names["check"](candidate)
    except BaseException as error:  # noqa: BLE001 (whatever ends the tests is a verdict)
        return candidate.fault or _failure(error, candidate)
    if not candidate.calls:
        return "broken tests: they never call the function"
    return candidate.fault or "passed"


def _failure(error: BaseException, candidate: Candidate) -> str:
    for raised, name in candidate.raised:
        if raised is error:
            return f"raised {name}"
    if candidate.calls or isinstance(error, AssertionError):
        return "wrong answer"  # also TypeError: None where the tests count on a number
    return f"broken tests: {type(error).__name__}: {_plain(str(error))}"


def _helpers(prompt: str) -> dict[str, Any]:
    """What a prompt that is a program defines beside the function: tests call it, or use what it imports."""
    names: dict[str, Any] = {"__name__": "tests"}
    try:
        code = compile(f"{prompt}\n    pass\n", "prompt", "exec")
    except SyntaxError:  # a prompt in plain words
        return names
    exec(code, names)  # noqa: S102 (confined)
    return names


def _exception(name: str, built_in: object) -> Exception:
    kind = getattr(builtins, built_in, None) if isinstance(built_in, str) and built_in not in _CONTROL else None
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(name)
        except TypeError:  # UnicodeDecodeError wants five arguments
            pass
    return RuntimeError(name)


def _plain(text: object) -> str:
    """What comes from a worker, as far as a message may repeat it."""
    letters = text if isinstance(text, str) else "unreadable"
    return "".join(letter for letter in letters[:80] if letter.isascii() and (letter.isalnum() or letter in " _().'"))
