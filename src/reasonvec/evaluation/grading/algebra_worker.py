"""The process that runs math-verify on text by a model: one JSON line in, one out. It imports nothing of reasonvec.

A text can make algebra run for ever, in C too, or take all memory; so this process has a limit of both, set by the
system, and is started anew once it is killed. After the imports nothing may be compiled from text or started.
"""

import json
import logging
import os
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
    (r"(a + 5)(b + 2)", r"a b + 2 a + 5 b + 10"),
    (r"\sin^2 x + \cos^2 x", r"\tan x + \frac{1}{2}"),
    (r"\log_{2} x + e^{x} + \sqrt[3]{x}", r"n! + \binom{n}{2} + |x| + \lfloor x \rfloor"),
    (r"\sum_{k=1}^{n} k + \int x dx", r"\frac{n(n+1)}{2} + \frac{d}{dx} x^2"),
    (r"x^2 = 4", r"2 x = 4"),
    (r"1 < x \le 2", r"(1, 2]"),
    (r"(-\infty, 0) \cup \{1\}", r"\{1, 2\}"),
    (r"(1, x)", r"(x, 1.5)"),
    (r"\begin{pmatrix} 1 \\ x \end{pmatrix}", r"\begin{pmatrix} 0.5 \\ x + 1 \end{pmatrix}"),
    (r"1 + 2 i", r"8\%"),
)
"""Comparisons that make sympy import what it imports at first use, before the guard is up."""
_LATEX = [LatexExtractionConfig(boxed_match_priority=0)]
_MONOMIALS = re.compile(r"def monomial_[a-z]+\((?:A|B|k|, )+\):\n    ")
_NUMERAL = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_FORBIDDEN = (
    "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.remove", "os.rename", "os.rmdir", "os.mkdir",
    "os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate", "shutil.", "subprocess.", "socket.", "ctypes.",
)  # fmt: skip
"""Beginnings of the names of Python's audit events."""


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
    text = text.strip()
    if not _NUMERAL.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a numeral.")
    return sympy.Float(text, max(15, len(text))) if set(text) & set(".eE") else sympy.Integer(text)


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    compiled = event == "compile" and str(arguments[1]).startswith("<") and not _is_of_sympy(arguments[0])
    written = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & _WRITING)
    if compiled or written or event.startswith(_FORBIDDEN):
        raise PermissionError(f"{event} is not for comparing expressions.")


def _is_of_sympy(source: Any) -> bool:
    """Its multiplication of monomials of n variables, written by itself from the number n."""
    text = source.decode() if isinstance(source, bytes) else source
    return isinstance(text, str) and _MONOMIALS.match(text) is not None


def _limit_time() -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soon = int(usage.ru_utime + usage.ru_stime) + 1 + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (soon, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def main() -> None:
    """Answer requests until the input ends: {"text", "gold"} -> {"same"}. At its limit the process ends."""
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for text, gold in _FIRST:
        same(text, gold)
    sympy.parsing.sympy_parser.parse_expr = _numeral
    sys.addaudithook(_guard)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        request = json.loads(line)
        _limit_time()
        try:
            answer = same(request["text"], request["gold"])
        except Exception:  # noqa: BLE001 - whatever a library trips over, the text is not shown to be the answer
            answer = False
        sys.stdout.write(json.dumps({"same": answer}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
