"""The self-test: before a model's first program is run, what a small hostile one of our own can and cannot do here.
Nothing is assumed of the host; whether to go on is for `require` to say."""

import contextlib
import json
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reasonvec.errors import ReasonvecError, SandboxError
from reasonvec.evaluation.sandbox.host import host
from reasonvec.evaluation.sandbox.judging import ONLY_LINUX, judge
from reasonvec.evaluation.sandbox.processes import confined, pipe, report_of

_TIMEOUT_S = 20.0
_ATTEMPTS = {
    "limits": ("memory", "raise a limit"),
    "no network": ("TCP", "UDP", "a Unix socket"),
    "no writes": ("write a file", "overwrite a file", "empty a file", "change a file's mode", "change a file's time",
                  "delete a file"),
    "no reads outside": ("read a file", "list a directory", "read another process's environment"),
    "no other processes": ("fork", "run a program", "a thread", "signal a process", "trace a process"),
}  # fmt: skip
_LAYERS = {
    "process separation": "two processes",
    "limits": "rlimits",
    "no network": "seccomp",
    "no writes": "seccomp and Landlock",
    "no reads outside": "Landlock",
    "no other processes": "seccomp",
}
_CHEATS = ("import os\nos._exit(0)", "class Any:\n    def __eq__(self, other):\n        return True\n\n"
           "def double(number):\n    return Any()")  # fmt: skip
_HONEST = "def double(number):\n    return 2 * number"
_TEST = "def check(candidate):\n    assert candidate(21) == 42\n"


@dataclass(frozen=True)
class Guarantee:
    """One thing that confined programs cannot do, or one layer more where the host permits it."""

    name: str
    layer: str
    """What provides it."""
    holds: bool
    required: bool
    """Whether model-written code is refused without it."""
    detail: str
    """What was tried, or what is missing."""


@dataclass(frozen=True)
class SandboxReport:
    """What the sandbox does on this host, as it was just tried."""

    platform: str
    """`sys.platform`; only linux has a sandbox."""
    guarantees: tuple[Guarantee, ...]

    @property
    def missing(self) -> tuple[Guarantee, ...]:
        """Those that are required and do not hold."""
        return tuple(guarantee for guarantee in self.guarantees if guarantee.required and not guarantee.holds)

    def to_json(self) -> dict[str, Any]:
        """For the results, beside the scores of the programs that ran in it."""
        return {"platform": self.platform, "guarantees": [asdict(guarantee) for guarantee in self.guarantees]}


def self_test() -> SandboxReport:
    """Try everything; takes about half a second. Raises nothing: what cannot be tried does not hold."""
    if sys.platform != "linux":
        return _nothing(ONLY_LINUX)
    try:
        attempted = _probe()
        separation = _separation()
    except (ReasonvecError, OSError, ValueError, KeyError) as error:
        return _nothing(f"the self-test did not finish: {error}")
    here = host()
    causes = {"seccomp": here.seccomp, "Landlock": here.landlock}
    found = [separation]
    for name, attempts in _ATTEMPTS.items():
        works = [attempt for attempt in attempts if attempted["attempts"][attempt] is None]
        why = "; ".join(f"{layer}: {cause}" for layer, cause in causes.items() if layer in _LAYERS[name])
        detail = f"possible: {', '.join(works)}" if works else f"impossible: {', '.join(attempts)}"
        found.append(Guarantee(name, _LAYERS[name], not works, True, f"{detail}{why and f' ({why})'}"))
    user, namespaces = attempted["confinement"]["user"], attempted["confinement"]["namespaces"]
    found.append(Guarantee("another user", "setresuid", "becomes" in user, False, user))
    found.append(Guarantee("namespaces", "unshare", namespaces.endswith("of its own"), False, namespaces))
    return SandboxReport(sys.platform, tuple(found))


def require(report: SandboxReport, *, accept_unsandboxed: bool) -> None:
    """Raise SandboxError if a guarantee is missing and that was not accepted. Off Linux it cannot be accepted."""
    if report.platform != "linux":
        raise SandboxError(ONLY_LINUX)
    if report.missing and not accept_unsandboxed:
        details = {one.detail for one in report.missing}
        missing = "\n".join(f"  {one.name}, from {one.layer}: {one.detail}" for one in report.missing)
        if len(details) == 1 < len(report.missing):  # said once, what no probe got as far as trying
            missing = f"  {', '.join(one.name for one in report.missing)}: {details.pop()}"
        raise SandboxError(
            f"Model-written code is not run here: the sandbox lacks {len(report.missing)} of its guarantees.\n"
            f"{missing}\nA program that a model wrote could do these things to this machine. Provide what is missing, "
            f"or use a virtual machine that may be lost and accept it with --i-accept-unsandboxed-code; results say so."
        )


def _nothing(detail: str) -> SandboxReport:
    return SandboxReport(
        sys.platform, tuple(Guarantee(name, layer, False, True, detail) for name, layer in _LAYERS.items())
    )


def _separation() -> Guarantee:
    """An honest program passes and cheats do not, so the verdict is not the program's own."""
    verdicts = [
        judge(program, entry_point="double", prompt="", test=_TEST, timeout_s=_TIMEOUT_S, accept_unsandboxed=True)
        for program in (_HONEST, *_CHEATS)
    ]
    holds = verdicts[0] == "passed" and "passed" not in verdicts[1:]
    detail = f"an honest program: {verdicts[0]}; two that cheat: {', '.join(verdicts[1:])}"
    return Guarantee("process separation", _LAYERS["process separation"], holds, True, detail)


def _probe() -> Mapping[str, Any]:
    """What the probe reports. It is given a file and a directory that everybody may change, and a port that listens."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        secret = folder / "secret"
        secret.write_text("to be left alone")
        secret.chmod(0o666)
        folder.chmod(0o777)
        reported, report = pipe(stack)
        settings = {"secret": str(secret), "writable": str(folder), "port": listener.getsockname()[1]}
        stack.enter_context(confined(host(), role="probe", ends=(report,), timeout_s=_TIMEOUT_S, settings=settings))
        found: Mapping[str, Any] = json.loads(report_of(reported, time.monotonic() + _TIMEOUT_S) or b"{}")
        return found
