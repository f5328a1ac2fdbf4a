"""One hostile program on this machine, with what it would like to find here, and what is left afterwards.

python -m tests.evaluation.sandbox.attack      # all of them, as whoever runs this; prints what went wrong as JSON
"""

import json
import os
import socket
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from reasonvec.evaluation import sandbox
from reasonvec.evaluation.sandbox import host
from reasonvec.evaluation.sandbox.judging import judge
from tests.evaluation.sandbox.hostile import ALL, HONEST, PROMPT, TEST

TIMEOUT_S = 1.0
PACKAGE = Path(sandbox.__file__).parent


def run(source, timeout_s=20.0):
    return judge(source, entry_point="add", prompt=PROMPT, test=TEST, timeout_s=timeout_s)


def attack(name):
    """Everything that is not as it should be: the verdict, a file, a process, the verdict of the next program."""
    before = processes()
    faults = attempt(name)
    if left := processes() - before:
        faults.append(f"left processes {left}")
    return faults


def attempt(name):
    """The same, but for processes, of which there are others while other attacks are under way."""
    source, expected = ALL[name]
    faults = []
    with tempfile.TemporaryDirectory() as text, socket.create_server(("127.0.0.1", 0)) as listener:
        folder = Path(text)
        secret = folder / "secret"
        secret.write_text("secret")
        secret.chmod(0o666)
        folder.chmod(0o777)
        before = state(folder)
        values = {"PARENT": os.getpid(), "PORT": listener.getsockname()[1], "SECRET": secret, "FOLDER": folder,
                  "PACKAGE": PACKAGE}  # fmt: skip
        for word, value in values.items():
            source = source.replace(f"${word}", str(value))
        timeout_s = TIMEOUT_S if expected == "timed out" else 20.0
        started = time.monotonic()
        verdict = run(source, timeout_s)
        if time.monotonic() - started > timeout_s + 5:  # one on an idle machine
            faults.append("took longer than it may")
        if verdict != expected:
            faults.append(f"verdict {verdict!r} instead of {expected!r}")
        if state(folder) != before:
            faults.append("changed files")
        listener.settimeout(0)
        try:
            listener.accept()
            faults.append("connected")
        except BlockingIOError:
            pass
    if (next_one := run(HONEST)) != "passed":
        faults.append(f"the next honest program: {next_one}")
    return faults


def state(folder):
    """The files that programs try to change, with mode, size and times; others' files come and go."""
    library = Path(os.__file__).parent
    new = [Path("/tmp/reasonvec-was-here"), Path("/dev/shm/x"), Path("/core"), library / "sitecustomize.py",
           library / "site-packages/x.pth"]  # fmt: skip
    found = {path: path.lstat() for path in (*folder.iterdir(), *PACKAGE.glob("*.py"), *new) if path.exists()}
    return {(path, status.st_mode, status.st_size, status.st_mtime) for path, status in found.items()}


def processes():
    """Numbers of the processes that run our sandbox, or belong to the user it runs as where that is nobody."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                owner, command = entry.stat().st_uid, (entry / "cmdline").read_bytes()
                mine = b"sandbox.inside" in command and f"{PACKAGE.parents[2]}".encode() in command
            except OSError:
                continue  # it has ended
            if mine or owner == host.NOBODY != os.getuid():
                found.add(int(entry.name))
    return found


if __name__ == "__main__":
    running = processes()
    with ThreadPoolExecutor(4) as pool:
        wrong = {name: faults for name, faults in zip(ALL, pool.map(attempt, ALL), strict=True) if faults}
    if left := processes() - running:
        wrong["any"] = [f"left processes {left}"]
    json.dump({"user": os.getuid(), "attacks": len(ALL), "wrong": wrong}, sys.stdout)
