"""One program before its tests: a worker that runs it and a checker that asks it, under one deadline."""

import contextlib
import functools
import sys
import time

from reasonvec.errors import SandboxError
from reasonvec.evaluation.sandbox.host import host
from reasonvec.evaluation.sandbox.processes import confined, not_run, pipe, report_of

ONLY_LINUX = (
    f"Model-written code runs on Linux alone: {sys.platform} lacks what confines it there, seccomp and Landlock. "
    "Use a Linux machine, or a Linux container or virtual machine on this one (Docker)."
)


def judge(program: str, *, entry_point: str, prompt: str, test: str, timeout_s: float,
          accept_unsandboxed: bool = False) -> str:  # fmt: skip
    """Run `test`, Python source that defines `check(candidate)` or asserts by itself, on the function of `program`.

    `prompt` may define what the tests use; `timeout_s` are seconds from start to end. Returns `passed`, `wrong answer`,
    `raised NameError`, `ended early`, `timed out`, `refused: …`, or `broken tests: …`, which is no program's fault.
    Raises SandboxError where a layer is missing that the guarantees rest on, unless `accept_unsandboxed`.
    """
    if sys.platform != "linux":
        raise SandboxError(ONLY_LINUX)
    here = host()
    if not here.confines and not accept_unsandboxed:
        raise SandboxError(
            f"Model-written code was not run. seccomp: {here.seccomp}; Landlock: {here.landlock}. Without both it can "
            f"reach this machine's files, processes or network. Provide them, or use a virtual machine that may be "
            f"lost and accept it."
        )
    deadline = time.monotonic() + timeout_s
    with contextlib.ExitStack() as stack:
        (asked, ask), (answered, answer), (reported, report) = pipe(stack), pipe(stack), pipe(stack)
        start = functools.partial(confined, here, timeout_s=timeout_s)
        worker = {"entry_point": entry_point, "program": program}
        stack.enter_context(start(role="worker", ends=(asked, answer), settings=worker))
        checker = {"entry_point": entry_point, "prompt": prompt, "test": test}
        stack.enter_context(start(role="checker", ends=(ask, answered, report), settings=checker))
        line = report_of(reported, deadline)
    if line is None:
        return "timed out"
    text = line.decode("ascii", "replace")
    if text.startswith("not confined"):
        raise SandboxError(not_run(text))
    return text if text.isprintable() and text else "refused: the tests ended without a verdict"
