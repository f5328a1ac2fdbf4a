"""What one run shows: every figure against one that was counted by hand."""

import json
from math import sqrt
from pathlib import Path

import pytest

from reasonvec.errors import RunError
from reasonvec.evaluation.comparison import summarise

from .build import outcome, outcomes, write_run


def test_accuracy_has_wilsons_interval(tmp_path: Path) -> None:
    summary = summarise(write_run(tmp_path / "run", [True] * 15 + [False] * 133))
    assert (summary.problems, summary.completions, summary.correct) == (148, 148, 15)
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
    assert (summary.accuracy.low, summary.accuracy.high) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert summary.accuracy.method == "wilson"
    assert summary.pass_at == {} and summary.tasks == {} and summary.macro is None


def test_answers_that_are_missing_cut_off_or_empty_are_counted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [
        outcome("a", True, tokens=10),
        outcome("b", False, extracted=None, completion=" \n", tokens=1),
        outcome("c", False, extracted=None, finished=False, tokens=1024),
        outcome("d", False, finished=False, tokens=1024),
    ])  # fmt: skip
    summary = summarise(run)
    assert summary.answered == 0.5
    assert summary.cut_off == 0.5
    assert summary.empty == 1
    assert summary.mean_tokens == (10 + 1 + 1024 + 1024) / 4
    assert summary.median_tokens == (10 + 1024) / 2


def test_options_compared_by_likelihood_are_answered_and_never_cut_off(tmp_path: Path) -> None:
    fields = {"completion": None, "tokens": None, "finished": None, "extracted": None, "logliks": (-1.0, -2.0)}
    summary = summarise(write_run(tmp_path / "run", outcomes([True, False], **fields)))
    assert summary.answered == 1.0
    assert summary.cut_off is None and summary.mean_tokens is None and summary.median_tokens is None
    assert summary.empty == 0


def test_several_samples_give_the_mean_over_problems_with_millers_error(tmp_path: Path) -> None:
    shares = [4, 3, 1, 0, 2, 4]  # right of four
    run = write_run(tmp_path / "run", [
        outcome(f"p{number}", sample < share, sample=sample)
        for number, share in enumerate(shares) for sample in range(4)
    ])  # fmt: skip
    summary = summarise(run)
    mean = sum(shares) / 24
    error = sqrt(sum((share / 4 - mean) ** 2 for share in shares) / 5 / 6)
    assert (summary.problems, summary.samples, summary.completions, summary.correct) == (6, 4, 24, 14)
    assert summary.accuracy.value == pytest.approx(mean)
    assert summary.accuracy.low == pytest.approx(mean - 1.959964 * error)
    assert summary.accuracy.high == pytest.approx(mean + 1.959964 * error)
    assert summary.accuracy.method == "mean"
    # of the six pairs of four completions: all, all, three, none, five, all hold a right one
    assert summary.pass_at[2].value == pytest.approx((6 / 6 + 6 / 6 + 3 / 6 + 0 + 5 / 6 + 6 / 6) / 6)
    assert summary.pass_at[4].value == pytest.approx(5 / 6)
    assert set(summary.pass_at) == {2, 4}
    assert summary.pass_at[2].low < summary.pass_at[2].value < summary.pass_at[2].high


def test_samples_that_all_agree_still_have_an_interval(tmp_path: Path) -> None:
    answers = [outcome(f"p{number}", True, sample=sample) for number in range(20) for sample in range(2)]
    accuracy = summarise(write_run(tmp_path / "run", answers)).accuracy
    assert (accuracy.value, accuracy.high) == (1.0, 1.0)
    assert accuracy.low == pytest.approx(1 - 0.1611, abs=5e-5)  # Newcombe's 0 of 20, mirrored


def test_tasks_are_told_apart_and_the_macro_mean_weighs_them_alike(tmp_path: Path) -> None:
    right = {"bbh/a": [True] * 3 + [False] * 1, "bbh/b": [True] * 2 + [False] * 6}
    answers = [
        outcome(f"{task}/{number}", verdict, task=task)
        for task, verdicts in right.items() for number, verdict in enumerate(verdicts)
    ]  # fmt: skip
    summary = summarise(write_run(tmp_path / "run", answers, task="bbh"))
    assert {name: task.accuracy.value for name, task in summary.tasks.items()} == {"bbh/a": 0.75, "bbh/b": 0.25}
    assert summary.accuracy.value == pytest.approx(5 / 12)
    assert summary.macro is not None and summary.macro.value == pytest.approx(0.5)
    # s² = p(1-p)·n/(n-1); SE² = s²/n; halves squared
    error = sqrt(0.25 * (0.1875 / 3) + 0.25 * (0.1875 / 7))
    assert summary.macro.high == pytest.approx(0.5 + 1.959964 * error)


def test_the_harness_own_verdicts_stand_beside_ours_where_it_has_them(tmp_path: Path) -> None:
    answers = [outcome("a", True, strict=False, flexible=True), outcome("b", True, strict=True, flexible=True)]
    summary = summarise(write_run(tmp_path / "run", answers))
    assert summary.strict is not None and summary.strict.value == 0.5
    assert summary.flexible is not None and summary.flexible.value == 1.0
    without = summarise(write_run(tmp_path / "other", [outcome("a", True, strict=True), outcome("b", True)]))
    assert without.strict is None and without.flexible is None


def test_a_run_without_an_outcome_has_no_accuracy(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no outcome, so there is no accuracy to tell.*--resume"):
        summarise(write_run(tmp_path / "run", [], complete=False))


def test_problems_with_fewer_samples_are_not_averaged_away(tmp_path: Path) -> None:
    answers = [outcome("a", True), outcome("a", False, sample=1), outcome("b", True)]
    with pytest.raises(RunError, match=r"holds 2 completions of some problems and fewer of 1 others, first b: 1"):
        summarise(write_run(tmp_path / "run", answers))


@pytest.mark.parametrize("verdicts", [[True], [False], [True, False], [False] * 3])
def test_small_runs_have_finite_json(tmp_path: Path, verdicts: list[bool]) -> None:
    summary = summarise(write_run(tmp_path / "run", verdicts))
    document = json.loads(json.dumps(summary.to_json(), allow_nan=False))
    assert 0 <= document["accuracy"]["low"] <= document["accuracy"]["value"] <= document["accuracy"]["high"] <= 1
    assert document["accuracy"]["low"] < document["accuracy"]["high"]
