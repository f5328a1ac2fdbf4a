"""Comparing two mathematical expressions with math-verify, in a process of its own that text by a model cannot hang.

The process is started at the first comparison and serves all later ones; it ends when this one does.
"""

import functools
import importlib.util
import json
import os
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

    def compare(self, text: str, gold: str) -> bool | None:
        with self._lock:
            worker = self._worker or _start()
            self._worker = worker
            assert worker.stdin and worker.stdout
            try:
                worker.stdin.write(json.dumps({"text": text, "gold": gold}) + "\n")
                worker.stdin.flush()
                answer = worker.stdout.readline()
            except BrokenPipeError:
                answer = ""
            if answer:
                same = json.loads(answer)["same"]
                return None if same is None else bool(same)
            self._worker = None  # killed at its limit
            _end(worker)
            return None


def _start() -> subprocess.Popen[str]:
    if importlib.util.find_spec("math_verify") is None:
        raise MissingExtraError(
            "Answers that are expressions are compared by math-verify, which is not installed. "
            "Run: pip install 'reasonvec[eval]'"
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


def _end(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.communicate()
