"""Comparing two mathematical expressions with math-verify, in a process of its own that text by a model cannot hang.

The process is started at the first comparison and serves all later ones; it ends when this one does.
"""

import atexit
import contextlib
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

from reasonvec.errors import MissingExtraError

_WORKER = Path(__file__).with_name("algebra_worker.py")


def same_expression(text: str, gold: str) -> bool | None:
    """Whether `text` is the same as `gold`, both LaTeX; None if telling takes too much computing time or memory.

    The limits are computing time, not time of day, so that a busy machine gives the same verdicts. Raises
    MissingExtraError where math-verify is not installed.
    """
    return _algebra(os.getpid()).compare(text, gold)


@functools.cache
def _algebra(_process: int) -> "_Algebra":
    """One for each process: a fork must not share its parent's pipes."""
    return _Algebra()


class _Algebra:
    def __init__(self) -> None:
        self._worker: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        atexit.register(self._stop)

    def compare(self, text: str, gold: str) -> bool | None:
        with self._lock:
            self._worker = self._worker or _start()
            answer = ""
            try:
                answer = _ask(self._worker, json.dumps({"text": _cleaned(text), "gold": _cleaned(gold)}))
            finally:
                if not answer.endswith(
                    "\n"
                ):  # killed at its limit; or we are interrupted, and its answer would be late
                    self._stop()
            return bool(json.loads(answer)["same"]) if answer.endswith("\n") else None

    def _stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker:
            _end(worker)


def _ask(worker: subprocess.Popen[str], request: str) -> str:
    assert worker.stdin and worker.stdout
    try:
        worker.stdin.write(request + "\n")
        worker.stdin.flush()
        return worker.stdout.readline()
    except BrokenPipeError:
        return ""


def _start() -> subprocess.Popen[str]:
    if importlib.util.find_spec("math_verify") is None:
        raise MissingExtraError(
            "Answers that are expressions are compared by the Python package math_verify, which is not installed. "
            'Install what evaluation needs with: pip install "reasonvec[eval]"'
        )
    worker = subprocess.Popen(  # noqa: S603 - our own file, no shell
        [sys.executable, "-P", str(_WORKER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        # sympy's order of terms, and so what it simplifies to, may depend on hashes
        env=os.environ | {"PYTHONHASHSEED": "0"},
    )
    assert worker.stdout
    if worker.stdout.readline() != "ready\n":
        _end(worker)
        raise MissingExtraError(
            f"math-verify is installed, but did not start within {_WORKER.name}. Run: python -c 'import math_verify' "
            "to see why, or: pip install --force-reinstall 'reasonvec[eval]'"
        )
    return worker


def _cleaned(text: str) -> str:
    """Without dollar signs, the full stop, and what the parser misreads: 1e-9, a space before %, 1./3."""
    text = text.replace("\\$", "").replace("$", "").strip().removesuffix(".")
    text = re.sub(r"(?<=\d)[eE]([+-]?\d{1,4})(?![\d.])", r" \\times 10^{\1}", text)
    return re.sub(r"(?<=\d)\.(?!\d)", "", re.sub(r"\s+(?=\\?%)", "", text))


def _end(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    with contextlib.suppress(BrokenPipeError):  # what it had not read yet
        worker.communicate()
