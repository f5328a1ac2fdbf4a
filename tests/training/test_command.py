"""The commands: what they print where, and their exit statuses."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reasonvec.cli import main
from reasonvec.training.directory import read_record
from tests.training.small import SFT

pytestmark = pytest.mark.lab


def _train(kind: str, base: Path, sums: Path, out: Path, *words: str) -> Result:
    return CliRunner().invoke(main, [
        "train", kind, "--model", str(base), "--data", str(sums), "--data-dir", str(out.parent / "none"), "--bare",
        "--out", str(out), *words,
    ])  # fmt: skip


def test_json_is_the_record_and_nothing_else_is_on_stdout(base: Path, sums: Path, tmp_path: Path) -> None:
    changes = [word for change in SFT for word in ("--set", change)]
    result = _train("sft", base, sums, tmp_path / "sft", "--json", *changes)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed == {"path": str(tmp_path / "sft"), **(read_record(tmp_path / "sft") or {})}
    assert "warning: No benchmark's file" in result.stderr


@pytest.mark.parametrize(
    ("kind", "words", "said"),
    [
        ("grpo", [], "GRPO needs a --reward: exact, format, length"),
        ("grpo", ["--reward", "exact", "--set", "learning_rat=1"], "did you mean learning_rate"),
        ("sft", ["--trajectory", "often"], "--trajectory takes powers, none or a number of steps, not 'often'"),
        ("sft", ["--held-out", "24"], "none would be left"),
        ("pair", ["--set", "max_steps=3"], "write sft.max_steps=3 or grpo.max_steps=3"),
    ],
)
def test_wrong_usage_is_status_2_and_leaves_nothing(
    kind: str, words: list[str], said: str, base: Path, sums: Path, tmp_path: Path
) -> None:
    result = _train(kind, base, sums, tmp_path / "out", *words)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()
