"""Progress of a measurement in a log: how many lines, and what they say of the time that remains."""

import itertools

import pytest

from reasonvec.cli import evaluation


def _told(monkeypatch, capsys, *, seconds: float, batches: int) -> list[str]:
    clock = itertools.count(0.0, seconds)
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    advance = evaluation._lines()
    for done in range(1, batches + 1):
        advance("gsm8k", done, batches)
    return capsys.readouterr().err.splitlines()


def test_a_run_of_seconds_says_nothing(monkeypatch, capsys):
    assert _told(monkeypatch, capsys, seconds=0.5, batches=40) == []


def test_a_long_run_tells_at_once_how_long_and_then_every_minute(monkeypatch, capsys):
    lines = _told(monkeypatch, capsys, seconds=30.0, batches=20)
    assert lines[0] == "gsm8k: 2 of 20 completions, about 9 min remain"
    assert lines[1] == "gsm8k: 4 of 20 completions, about 8 min remain"
    assert len(lines) == 9  # the last with a minute to go


@pytest.mark.parametrize("total", [0, 1])
def test_a_run_of_one_batch_says_nothing(monkeypatch, capsys, total):
    assert _told(monkeypatch, capsys, seconds=300.0, batches=total) == []
