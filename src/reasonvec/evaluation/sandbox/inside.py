"""What a new process does: it reads its settings, confines itself, and only then becomes worker, checker or probe."""

import json
import os
import sys
from importlib import import_module

from reasonvec.evaluation.sandbox import confinement
from reasonvec.evaluation.sandbox.wire import CONFINED, send


def main() -> None:
    """Settings come as JSON on standard input, which is empty from then on."""
    with os.fdopen(os.dup(0), "rb") as file:
        settings = json.load(file)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    # before the package is out of reach; of the roles, which are modules, only its own: it starts sooner
    role = import_module(f"reasonvec.evaluation.sandbox.{settings['role']}")
    sys.path[:] = [path for path in sys.path if path not in settings["search"]]
    report = settings["descriptors"][-1]
    try:
        found = confinement.confine(settings)
    except OSError as error:
        send(report, f"not confined: {error}\n".encode())
        return
    send(report, CONFINED + b"\n")  # before anything untrusted could say so
    role.run({**settings, "confinement": found})
