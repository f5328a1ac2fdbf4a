"""Differences in differences: from runs on changed and unchanged problems to what a perturbation costs an arm."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from reasonvec.cli import main
from reasonvec.errors import RunError
from reasonvec.evaluation.comparison import compare_runs

from .build import BASELINE, flipped, outcome, perturbed, write_run


def test_robustness_is_the_difference_in_differences_on_the_same_problems(tmp_path: Path) -> None:
    """Clean: +17 points on all, +20 on the 50 that the operator applies to; changed: +4 on those."""
    write_run(tmp_path / "target", BASELINE)
    arm = flipped(BASELINE, gained=20, lost=3)
    write_run(tmp_path / "whole", arm, vector="v", alpha=1.0)
    some = list(range(50, 100))
    changed = [outcome(f"p{place}", BASELINE[place]) for place in some]
    better = [outcome(f"p{place}", BASELINE[place] or place in (98, 99)) for place in some]
    typo = perturbed("typo")
    write_run(tmp_path / "typo" / "target", changed, benchmark=typo, problems_sha256="1" * 64)
    write_run(tmp_path / "typo" / "whole", better, benchmark=typo, problems_sha256="1" * 64, vector="v", alpha=1.0)
    comparison = compare_runs([tmp_path])
    (row,) = comparison.robustness
    assert (row.n, row.arm, row.baseline) == (50, "whole", "target")
    clean = 100 * sum(arm[place] - BASELINE[place] for place in some) / 50
    assert row.clean_points == pytest.approx(clean) == pytest.approx(40.0)
    assert row.changed_points == pytest.approx(4.0)
    assert row.difference.points == pytest.approx(-36.0)
    # 18 problems moved by -1, the others not: 2 of 2^18 signs are as extreme
    assert row.clear and row.p <= 0.001
    assert row.holm_p == row.p


def test_perturbations_of_one_problem_are_pooled_as_clusters(tmp_path: Path) -> None:
    verdicts = [place % 2 == 0 for place in range(200)]
    arm = flipped(verdicts, gained=30, lost=5)
    write_run(tmp_path / "target", verdicts)
    write_run(tmp_path / "whole", arm, vector="v", alpha=1.0)
    for number, operator in enumerate(("typo", "surface", "number-format"), 1):
        fields: dict[str, Any] = {"benchmark": perturbed(operator), "problems_sha256": str(number) * 64}
        write_run(tmp_path / operator / "target", verdicts, **fields)
        write_run(tmp_path / operator / "whole", flipped(verdicts, gained=12, lost=5), vector="v", alpha=1.0, **fields)
    *single, together = compare_runs([tmp_path]).robustness
    assert len(single) == 3 and together.n == 200 and len(together.changed) == 3
    assert together.difference.points == pytest.approx(single[0].difference.points) == pytest.approx(-9.0)
    # the same three times is no more evidence than once
    assert single[0].difference.interval is not None and together.difference.interval is not None
    assert together.difference.interval.low == pytest.approx(single[0].difference.interval.low, rel=1e-6)
    assert together.holm_p is None


def test_without_the_unchanged_problems_the_table_says_what_to_measure(tmp_path: Path) -> None:
    typo = perturbed("typo")
    write_run(tmp_path / "target", BASELINE, benchmark=typo)
    write_run(tmp_path / "whole", flipped(BASELINE, gained=9, lost=1), benchmark=typo, vector="v", alpha=1.0)
    comparison = compare_runs([tmp_path])
    assert comparison.robustness == ()
    assert any("no difference in differences for whole" in note for note in comparison.tables[0].notes)


def test_an_unchanged_side_that_lacks_some_problems_is_said_to(tmp_path: Path) -> None:
    """As severity 0, which is of the problems of severity 1, lacks some that `numbers` changes at severity 2."""
    for severity, first in ((0, 3), (2, 0)):
        answers = [outcome(f"p{place}", place % 2 == 0) for place in range(first, 50)]
        fields: dict[str, Any] = {
            "benchmark": perturbed("numbers", severity),
            "problems_sha256": str(severity) * 64,
        }
        write_run(tmp_path / str(severity) / "target", answers, **fields)
        write_run(tmp_path / str(severity) / "whole", answers, vector="v", alpha=1.0, **fields)
    comparison = compare_runs([tmp_path])
    assert comparison.robustness == ()
    (note,) = [note for table in comparison.tables for note in table.notes if "difference in differences" in note]
    assert "for whole: of these problems 3 were not measured unchanged" in note
    assert "measure arm and baseline on all of the benchmark unchanged" in note and "--severity 0" not in note


def test_every_table_of_changed_problems_says_to_which_share_the_operator_applies(tmp_path: Path) -> None:
    typo = perturbed("typo", applied=100, problems=250)
    write_run(tmp_path / "target", BASELINE)
    write_run(tmp_path / "whole", BASELINE, vector="v", alpha=1.0)
    write_run(tmp_path / "typo" / "target", BASELINE, benchmark=typo)
    write_run(tmp_path / "typo" / "whole", BASELINE, benchmark=typo, vector="v", alpha=1.0)
    printed = CliRunner().invoke(main, ["stats", str(tmp_path)], env={"COLUMNS": "200"})
    assert "typo, severity 1, seed 0: 100 problems; the operator applies to 100 of 250 (40.0%)" in " ".join(
        printed.stdout.split()
    )
    (row,) = [line.split() for line in printed.stdout.splitlines() if line.split()[:2] == ["typo", "1"]]
    assert row[2:4] == ["100", "40%"]
    document = compare_runs([tmp_path]).to_json()
    assert [table["applies_to"] for table in document["benchmarks"]] == [None, 0.4]
    assert [row["applies_to"] for row in document["robustness"]] == [0.4]


def test_severity_nought_is_the_unchanged_side(tmp_path: Path) -> None:
    for severity in (0, 1):
        fields: dict[str, Any] = {"benchmark": perturbed("typo", severity), "problems_sha256": str(severity) * 64}
        write_run(tmp_path / str(severity) / "target", BASELINE, **fields)
        verdicts = flipped(BASELINE, gained=10 - 5 * severity, lost=1)
        write_run(tmp_path / str(severity) / "whole", verdicts, vector="v", alpha=1.0, **fields)
    (row,) = compare_runs([tmp_path]).robustness
    assert (row.clean_points, row.changed_points) == pytest.approx((9.0, 4.0))


def test_changed_problems_that_were_sampled_otherwise_are_refused(tmp_path: Path) -> None:
    for folder, fields in (
        ("clean", {}),
        ("typo", {"benchmark": perturbed("typo"), "sampling": {"temperature": 1.0}}),
    ):
        write_run(tmp_path / folder / "target", BASELINE, **fields)
        write_run(tmp_path / folder / "whole", BASELINE, vector="v", alpha=1.0, **fields)
    with pytest.raises(RunError, match=r"were not measured alike:\n.*sampling.temperature \(1.0, 0.0\)"):
        compare_runs([tmp_path])


def test_what_may_change_the_answer_is_no_measure_of_robustness(tmp_path: Path) -> None:
    write_run(tmp_path / "target", BASELINE)
    write_run(tmp_path / "whole", BASELINE, vector="v", alpha=1.0)
    shuffled = perturbed("shuffle-all")
    write_run(tmp_path / "s" / "target", BASELINE, benchmark=shuffled)
    write_run(tmp_path / "s" / "whole", BASELINE, benchmark=shuffled, vector="v", alpha=1.0)
    comparison = compare_runs([tmp_path])
    assert comparison.robustness == ()
    assert any("may change the right answer" in note for table in comparison.tables for note in table.notes)


def test_a_file_of_ones_own_is_the_unchanged_side_of_what_was_made_of_it(tmp_path: Path) -> None:
    own = {"task": "sums.jsonl", "files": {"sums.jsonl": "a" * 64}}
    typo = perturbed("typo")
    typo["perturbation"]["benchmark"] = {"task": "sums", "files": {"sums.jsonl": "a" * 64}}
    for folder, benchmark, gained in (("clean", own, 12), ("typo", typo, 5)):
        fields: dict[str, Any] = {"benchmark": benchmark, "problems_sha256": str(gained) * 32}
        write_run(tmp_path / folder / "target", BASELINE, **fields)
        write_run(
            tmp_path / folder / "whole", flipped(BASELINE, gained=gained, lost=0), vector="v", alpha=1.0, **fields
        )
    (row,) = compare_runs([tmp_path]).robustness
    assert (row.clean_points, row.changed_points) == pytest.approx((12.0, 5.0))


def test_rows_of_one_arm_have_one_name_wherever_each_was_measured(tmp_path: Path) -> None:
    write_run(tmp_path / "target", BASELINE)
    write_run(tmp_path / "whole", flipped(BASELINE, gained=12, lost=0), vector="v", alpha=1.0)
    for number, operator in enumerate(("typo", "surface"), 1):
        fields: dict[str, Any] = {"benchmark": perturbed(operator), "problems_sha256": str(number) * 64}
        write_run(tmp_path / f"target-{operator}", BASELINE, **fields)
        write_run(tmp_path / f"whole-{operator}", BASELINE, vector="v", alpha=1.0, **fields)
    assert {(row.arm, row.baseline) for row in compare_runs([tmp_path]).robustness} == {("whole", "target")}
