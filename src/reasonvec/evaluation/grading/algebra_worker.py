"""The process that runs math-verify on text by a model: one JSON line in, one out. It imports nothing of reasonvec.

A text can make algebra run for ever, in C too, or take all memory; so this process has a limit of both, set by the
system, and is started anew once it is killed. After the imports nothing may be compiled from text or started.
"""

import json
import logging
import re
import resource
import sys
from typing import Any

import math_verify
import sympy  # type: ignore[import-untyped]
import sympy.parsing.sympy_parser  # type: ignore[import-untyped]
from math_verify import LatexExtractionConfig

CPU_SECONDS = 5
"""Of computing time for one comparison, whatever else the machine does. The system counts whole seconds."""
MEMORY = 2 << 30
"""Bytes of address space."""
_DECIMAL_TOLERANCE = sympy.Float("5e-7", 30)
_EXACT_TOLERANCE = sympy.Float("1e-40", 60)
_FIRST = (
    ("x + 1", "1 + x"),
    ("(1, 2]", "x \\le 2"),
    ("\\sqrt{8} + 0.5", "\\{1, 2\\}"),
    ("x = 1", "2 x = 2"),
    ("x", "\\sin y"),
)
"""Comparisons that make sympy import what it imports at first use, before the guard is up."""
_LATEX = [LatexExtractionConfig(boxed_match_priority=0)]
_NUMERAL = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_FORBIDDEN = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.", "ctypes.")


def same(text: str, gold: str) -> bool:
    """Whether two LaTeX expressions are equal: numbers by value, everything else as math-verify says."""
    wanted, given = _parsed(gold), _parsed(text)
    for one in wanted:
        for other in given:
            numeric = _same_numbers(one, other)
            if numeric or (numeric is None and math_verify.verify(one, other, strict=True, timeout_seconds=None)):
                return True
    return False


def _parsed(text: str) -> list[Any]:
    return list(math_verify.parse(f"\\boxed{{{text}}}", _LATEX, fallback_mode="no_fallback", parsing_timeout=None))


def _same_numbers(one: Any, other: Any) -> bool | None:
    """Equal to half a unit in the sixth digit if one is a decimal, else to 40 digits; None if not two real numbers."""
    if not all(isinstance(value, sympy.Expr) and value.is_number and value.is_finite for value in (one, other)):
        return None
    if one.has(sympy.UnevaluatedExpr) or other.has(sympy.UnevaluatedExpr):
        return None  # a percentage
    decimal = one.has(sympy.Float) or other.has(sympy.Float)
    first, second = (sympy.N(value, 60) for value in (one, other))
    if not (first.is_Float or first.is_Integer) or not (second.is_Float or second.is_Integer):
        return None
    tolerance = _DECIMAL_TOLERANCE if decimal else _EXACT_TOLERANCE
    return bool(abs(first - second) <= tolerance * max(abs(first), abs(second)))


def _numeral(text: str, **_options: Any) -> sympy.Expr:
    """In place of sympy.parse_expr, to which sympy.Number leads every numeral, and which is Python's eval."""
    if not _NUMERAL.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a numeral.")
    return sympy.Float(text, max(15, len(text))) if set(text) & set(".eE") else sympy.Integer(text)


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    compiled = event == "compile" and isinstance(arguments[1], str) and arguments[1].startswith("<")
    executed = event == "exec" and getattr(arguments[0], "co_filename", "<").startswith("<string>")
    written = event == "open" and isinstance(arguments[1], str) and any(letter in arguments[1] for letter in "wax+")
    if compiled or executed or written or event.startswith(_FORBIDDEN):
        raise PermissionError(f"{event} is not for comparing expressions.")


def _limit_time() -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soon = int(usage.ru_utime + usage.ru_stime) + 1 + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (soon, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def main() -> None:
    """Answer requests until the input ends: {"text", "gold"} -> {"same": true, false, or null if it was too much}."""
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sympy.parsing.sympy_parser.parse_expr = _numeral
    for text, gold in _FIRST:
        same(text, gold)
    sys.addaudithook(_guard)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        request = json.loads(line)
        _limit_time()
        answer: bool | None
        try:
            answer = same(request["text"], request["gold"])
        except (MemoryError, RecursionError):
            answer = None
        except Exception:  # noqa: BLE001 - whatever a library trips over, the text is not shown to be the answer
            answer = False
        sys.stdout.write(json.dumps({"same": answer}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
