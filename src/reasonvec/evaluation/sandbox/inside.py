"""What a new process does: it reads its settings, confines itself, and only then becomes worker, checker or probe."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from reasonvec.evaluation.sandbox import checker, confinement, probe, worker
from reasonvec.evaluation.sandbox.wire import CONFINED, send

_Role = Callable[[Mapping[str, Any]], None]
_ROLES: dict[str, _Role] = {"worker": worker.run, "checker": checker.run, "probe": probe.run}


def main() -> None:
    """Settings come as JSON on standard input, which is empty from then on."""
    with os.fdopen(os.dup(0), "rb") as file:
        settings = json.load(file)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.path[:] = [path for path in sys.path if path not in settings["search"]]
    report = settings["descriptors"][-1]
    try:
        found = confinement.confine(settings)
    except OSError as error:
        send(report, f"not confined: {error}\n".encode())
        return
    send(report, CONFINED + b"\n")  # before anything untrusted could say so
    _ROLES[settings["role"]]({**settings, "confinement": found})
