"""Golden training curves: the losses of two tiny runs against those committed beside this file.

SFT is arithmetic alone: another machine's kernels move it in the sixth digit, and 1e-3 is the tolerance. GRPO samples:
a last bit can turn one token into another, so what its curve is held to is the reward, whose tolerance 0.05 allows for
some such tokens a step and for no other learning rate. `python -m tests.training.test_golden` writes the file anew.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from reasonvec.training.directory import read_log
from reasonvec.training.donor import train_donor
from tests.training.small import request, write_base, write_sums

pytestmark = pytest.mark.lab

GOLDEN = Path(__file__).with_name("golden.json")
CHANGES = {
    "sft": ("max_steps=8",),
    "grpo": ("max_steps=7", "learning_rate=1e-2", "per_device_train_batch_size=64", "num_generations=16"),
}
COLUMN = {"sft": ("loss", 1e-3), "grpo": ("reward", 0.05)}


def _curve(kind: str, base: Path, sums: Path, out: Path, *changes: str) -> list[float]:
    train_donor(request(kind, base, sums, out, *CHANGES[kind], *changes))
    return [line[COLUMN[kind][0]] for line in read_log(out)]


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_a_training_follows_its_golden_curve(kind: str, base: Path, sums: Path, tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text())[kind]
    found = _curve(kind, base, sums, tmp_path / "out")
    assert found == pytest.approx(golden, abs=COLUMN[kind][1])


@pytest.mark.parametrize(("kind", "change"), [("sft", "learning_rate=5.5e-3"), ("grpo", "learning_rate=5e-3")])
def test_another_learning_rate_does_not(kind: str, change: str, base: Path, sums: Path, tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text())[kind]
    assert _curve(kind, base, sums, tmp_path / "out", change) != pytest.approx(golden, abs=COLUMN[kind][1])


def write_golden() -> None:
    """Write the file; look at the difference before it is committed."""
    with tempfile.TemporaryDirectory() as scratch:
        base, sums = write_base(Path(scratch) / "base"), write_sums(Path(scratch) / "sums.jsonl")
        curves: dict[str, Any] = {kind: _curve(kind, base, sums, Path(scratch) / kind) for kind in CHANGES}
    GOLDEN.write_text(json.dumps(curves, indent=1) + "\n")


if __name__ == "__main__":
    write_golden()
