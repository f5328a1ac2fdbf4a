"""The directory of one training, while it runs and when it is done. Knows nothing of models.

OUT/
    plan.json         what is trained, on what, how; a resumed run must match it
    log.jsonl         one JSON object for each logged step
    state/            checkpoint-N: TRL's own, to go on from; `whole` in each is written last; removed at the end
    trajectory/       step-N: ordinary checkpoints along the way
    config.json, *.safetensors, tokenizer files     the donor
    training.json     written last: its presence means that the donor is whole
"""

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reasonvec.errors import CheckpointError, OutputError
from reasonvec.evaluation.whole_file import write_whole
from reasonvec.weights.strict_json import read_json

PLAN, LOG, RECORD, WHOLE = "plan.json", "log.jsonl", "training.json", "whole"
_KEPT = (PLAN, LOG, "lock", "state", "trajectory", "tensorboard")
"""What a run has in OUT before its donor."""
_SHOWN = 5


class RunDirectory:
    """OUT. In a run of several processes the main one alone calls `begin`, `log` and `finish`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self.trajectory = root / "trajectory"
        self.tensorboard = root / "tensorboard"
        self._lock = -1
        self._fresh = False

    def begin(self, plan: Mapping[str, Any], *, resume: bool, force: bool) -> None:
        """Make the directory, or take up an interrupted run in it; what an interrupted save left is cleared away.

        Raises OutputError for an output that is finished, that another process writes, that is no training's, or that
        was begun with another plan.
        """
        plan = json.loads(json.dumps(plan))
        if os.path.lexists(self.root):
            self._check_existing(resume=resume, force=force)
        if self.root.exists() and force and not resume:
            shutil.rmtree(self.root)
        if not self.root.exists():
            self.root.mkdir(parents=True)
            self._fresh = True
            self._take_lock()
            write_json(self.root / PLAN, plan)
            return
        self._check_plan(plan)
        if not (self.root / RECORD).exists():
            self._take_lock()
            self._clear_up()

    def record(self) -> dict[str, Any] | None:
        """What a finished training wrote of itself; None of one that is not finished."""
        return read_record(self.root) if (self.root / RECORD).exists() else None

    def last_state(self) -> Path | None:
        """The newest of TRL's checkpoints that is whole."""
        found = [path for path in self.state.glob("checkpoint-*") if (path / WHOLE).exists()]
        return max(found, key=step_of, default=None)

    def log(self, line: Mapping[str, Any]) -> None:
        """Append one line to the log, so that it survives a kill of the process."""
        with (self.root / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def finish(self, donor: Path, record: Mapping[str, Any]) -> None:
        """Move the finished donor's files into OUT, the configuration last but the record, and drop TRL's state."""
        names = sorted(path.name for path in donor.iterdir())
        for name in sorted(names, key=lambda name: (name == "config.json", name)):
            # without config.json nothing takes the directory for a checkpoint
            sync(donor / name)
            (donor / name).rename(self.root / name)
        donor.rmdir()
        sync(self.root)
        write_json(self.root / RECORD, record)
        sync(self.root)
        shutil.rmtree(self.state, ignore_errors=True)
        (self.root / "lock").unlink(missing_ok=True)

    def abandon(self) -> None:
        """Remove what `begin` has just made, where nothing was trained."""
        if self._fresh:
            shutil.rmtree(self.root, ignore_errors=True)

    def release(self) -> None:
        """Let another process write here."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _check_existing(self, *, resume: bool, force: bool) -> None:
        if not (self.root / PLAN).is_file():
            raise OutputError(f"{self.root} exists already and is no training's. Name another --out.")
        if force and not resume:
            return
        if (self.root / RECORD).exists() and not resume:
            raise OutputError(f"{self.root} holds a finished donor. Name another --out, or replace it with --force.")
        if not resume:
            state = self.last_state()
            where = f"step {step_of(state)}" if state else "its start"
            raise OutputError(f"{self.root} holds an interrupted training, which can go on from {where}: add --resume, "
                              f"or start anew with --force.")  # fmt: skip

    def _take_lock(self) -> None:
        self._lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OutputError(f"{self.root} is being written by another process. Wait for it, or end it.") from None

    def _check_plan(self, plan: Mapping[str, Any]) -> None:
        before = json.loads((self.root / PLAN).read_text(encoding="utf-8"))
        flat_before, flat_now = _flat(before), _flat(plan)
        differing = [
            f"{name}: {flat_before.get(name)!r} then, {flat_now.get(name)!r} now"
            for name in sorted(flat_before.keys() | flat_now.keys()) if flat_before.get(name) != flat_now.get(name)
        ]  # fmt: skip
        if differing:
            more = f"; and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
            raise OutputError(
                f"{self.root} was begun with other arguments: {'; '.join(differing[:_SHOWN])}{more}. A run that goes "
                f"on differently is no run. Give the same arguments, or start anew with --force."
            )

    def _clear_up(self) -> None:
        """Back to the last whole state: no half checkpoint or donor, nothing logged or kept from steps after it."""
        last = self.last_state()
        step = step_of(last) if last else 0
        for path in self.root.iterdir():
            if path.name not in _KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in self.state.glob("*"):
            if path.is_dir() and not (path / WHOLE).exists():
                shutil.rmtree(path)
        for path in self.trajectory.glob("*"):
            if not path.name.startswith("step-") or step_of(path) > step:
                shutil.rmtree(path)
        log = self.root / LOG
        if log.exists():
            lines = [line for line in log.read_text(encoding="utf-8").splitlines() if _step(line) <= step]
            log.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def step_of(path: Path) -> int:
    """The number in the name of checkpoint-N or step-N."""
    return int(path.name.rpartition("-")[2])


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # the torn last line of a killed run


def read_log(root: Path) -> list[dict[str, Any]]:
    """The lines of a training's log."""
    return [json.loads(line) for line in (root / LOG).read_text(encoding="utf-8").splitlines()]


def read_record(root: Path) -> dict[str, Any] | None:
    """training.json of a directory that `train` made, or None where it has none that can be read."""
    try:
        found = read_json(root / RECORD)
    except (CheckpointError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a small file, whole or not at all."""
    write_whole(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode(), force=True)


def mark_whole(state: Path) -> None:
    """Put a checkpoint of TRL's on the disk and say so in it; called when all processes have written theirs."""
    for path in state.rglob("*"):
        sync(path)
    (state / WHOLE).touch()
    sync(state)


def sync(path: Path) -> None:
    """Have a file or directory on the disk before anything is said to be there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {name: item for key, inner in value.items() for name, item in _flat(inner, f"{prefix}.{key}" if prefix else
            key).items()}  # fmt: skip
