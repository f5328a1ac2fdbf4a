"""A run that is killed goes on from its last whole checkpoint and comes to the same losses and the same weights."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reasonvec.training.directory import read_log
from reasonvec.training.donor import train_donor
from tests.training.small import request, write_sums

pytestmark = pytest.mark.lab

KILLED = """
import os, signal, sys
from pathlib import Path
from reasonvec.training.callbacks import LogCallback
from reasonvec.training.donor import train_donor
from tests.training.small import request, write_sums

log = LogCallback.on_log

def killing(self, args, state, control, logs, **others):
    log(self, args, state, control, logs, **others)
    if state.global_step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)

LogCallback.on_log = killing
train_donor(request({kind!r}, Path({base!r}), Path({sums!r}), Path({out!r}), *{changes!r}, trajectory="4"))
"""


def _killed_at(step: int, kind: str, base: Path, sums: Path, out: Path, changes: tuple[str, ...]) -> None:
    code = KILLED.format(step=step, kind=kind, base=str(base), sums=str(sums), out=str(out), changes=changes)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert result.returncode == -signal.SIGKILL, result.stderr


def _same_weights(one: Path, other: Path) -> bool:
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return all(torch.equal(first[name], second[name]) for name in first)


# 13 rows are trained on. SFT has 2 steps an epoch; GRPO has 3 batches of 4 problems, each used twice, so 6 steps. Both
# are past their first epoch when they are killed. GRPO's states come at even steps: 4, 6, 10.
@pytest.mark.parametrize(
    ("kind", "steps", "changes"),
    [
        ("sft", 6, ("max_steps=6",)),
        ("grpo", 12, ("max_steps=12", "num_iterations=2", "steps_per_generation=1", "save_steps=3")),
    ],
)
def test_a_killed_run_goes_on_to_the_same_losses(
    kind: str, steps: int, changes: tuple[str, ...], base: Path, tmp_path: Path
) -> None:
    whole, broken, sums = tmp_path / "whole", tmp_path / "broken", write_sums(tmp_path / "sums.jsonl", 14)
    train_donor(request(kind, base, sums, whole, *changes, trajectory="4"))
    _killed_at(steps - 1, kind, base, sums, broken, changes)
    assert not (broken / "config.json").exists()
    assert [line["step"] for line in read_log(broken)] == list(range(1, steps))
    train_donor(request(kind, base, sums, broken, *changes, trajectory="4", resume=True))
    expected, found = read_log(whole), read_log(broken)
    assert all(line["loss"] for line in expected)
    assert [line["step"] for line in found] == list(range(1, steps + 1))
    for then, now in zip(expected, found, strict=True):
        for name in ("loss", "grad_norm", "entropy", *(["reward", "completion_length"] if kind == "grpo" else [])):
            assert now[name] == pytest.approx(then[name], abs=1e-6), (then["step"], name)
    assert _same_weights(whole, broken)
    assert sorted(path.name for path in (broken / "trajectory").iterdir()) == [
        f"step-{step}" for step in sorted(range(4, steps, 4), key=str)
    ]
    assert not (broken / "state").exists()
