"""A confined process that tries what must not work, and reports what did: the hostile program of the self-test."""

import ctypes
import json
import os
import resource
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reasonvec.evaluation.sandbox.wire import send


def run(settings: Mapping[str, Any]) -> None:
    """Write a JSON object: `confinement`, as it was found, and for each attempt why it failed, null if it did not."""
    (report,) = settings["descriptors"]
    attempts: dict[str, Callable[[], object]] = {
        "memory": lambda: bytearray(2 << 30),
        "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1)),
        "TCP": lambda: socket.create_connection(("127.0.0.1", settings["port"]), 1),
        "UDP": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "a Unix socket": lambda: socket.socket(socket.AF_UNIX),
        "write a file": lambda: Path(settings["writable"], "new").write_text("x"),
        "overwrite a file": lambda: Path(settings["secret"]).write_text("x"),
        "empty a file": lambda: os.open(settings["secret"], os.O_RDONLY | os.O_TRUNC),
        "change a file's mode": lambda: Path(settings["secret"]).chmod(0o666),
        "change a file's time": lambda: os.utime(settings["secret"], (0, 0)),
        "read a file": lambda: Path(settings["secret"]).read_text(),
        "list a directory": lambda: list(Path(settings["writable"]).iterdir()),
        "read another process's environment": lambda: Path(f"/proc/{settings['parent']}/environ").read_bytes(),
        "delete a file": lambda: Path(settings["secret"]).unlink(),
        "fork": _fork,
        "run a program": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "a thread": threading.Thread(target=int).start,
        "signal a process": lambda: os.kill(settings["parent"], 0),
        "trace a process": _trace,
    }
    found = {name: _why_it_failed(attempt) for name, attempt in attempts.items()}
    send(report, json.dumps({"confinement": settings["confinement"], "attempts": found}).encode() + b"\n")


def _why_it_failed(attempt: Callable[[], object]) -> str | None:
    try:
        attempt()
    except (OSError, MemoryError, RuntimeError, ValueError) as error:
        return str(error) or type(error).__name__
    return None


def _fork() -> None:
    if not os.fork():
        os._exit(0)
    os.wait()


def _trace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(0, 0, 0, 0):  # PTRACE_TRACEME
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
