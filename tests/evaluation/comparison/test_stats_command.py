"""The command: what a reader sees, and the document for programs."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reasonvec.cli import main

from .build import outcome, write_run

BASELINE = [True] * 300 + [False] * 200


def _run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setenv("COLUMNS", "100")
    return CliRunner().invoke(main, ["stats", *arguments])


def _study(path: Path) -> None:
    write_run(path / "target", BASELINE)
    write_run(path / "small", [True] * 312 + [False] * 188, vector="v", alpha=0.5)
    arm = [*([False] * 15), *([True] * 335), *([False] * 150)]
    write_run(path / "unclear", [*([False] * 40), *([True] * 312), *([False] * 148)], vector="v", alpha=1.5)
    write_run(path / "whole", arm, vector="v", alpha=1.0)
    for number in range(3):
        write_run(path / f"random-{number}", BASELINE, vector=f"r{number}", alpha=1.0, control="random")


def test_a_null_stands_beside_what_could_have_been_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _study(tmp_path)
    result = _run(str(tmp_path), monkeypatch=monkeypatch)
    assert result.exit_code == 0, result.output
    assert "The baseline is target: no vector, and the plain prompt." in result.stderr
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.split()}
    # 52 gained, 40 lost of 500: d·sqrt(500) = 1.96·sqrt(0.184) + 0.84·sqrt(0.184 - d²)
    unclear = next(line.split() for line in result.stdout.splitlines() if "unclear" in line and "+2.4" in line)
    assert unclear[-1] == "5.4"
    # 50 gained, 15 lost: clear, so nothing stands there
    whole = next(line.split() for line in result.stdout.splitlines() if "whole" in line and "+7.0" in line)
    assert whole[1:3] + whole[5:7] == ["+7.0", "+3.9", "50", "15"]
    assert len(whole) == 9 and float(whole[-1].lstrip("<")) < 0.001  # the last is Holm's p
    assert rows["target"][3:8] == ["60.0%", "55.6", "to", "64.2%", "100.0%"]
    assert "With 3 the rank p cannot be below 0.25: for 0.05 it takes 19" in " ".join(result.stdout.split())


def test_the_document_holds_every_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _study(tmp_path)
    result = _run(str(tmp_path), "--baseline", str(tmp_path / "target"), "--json", monkeypatch=monkeypatch)
    assert result.exit_code == 0, result.output
    (benchmark,) = json.loads(result.stdout)["benchmarks"]
    whole = next(row for row in benchmark["differences"] if row["arm"] == "whole")
    assert (whole["gained"], whole["lost"], whole["points"]) == (50, 15, 7.0)
    for interval in (whole, whole["analytic"], whole["bootstrap"]):
        assert interval["low"] == pytest.approx(3.9, abs=0.2) and interval["high"] == pytest.approx(10.1, abs=0.2)
    assert set(whole["answered"]) == {"arm", "baseline", "p"}


def test_refusals_come_with_status_one_and_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "target", BASELINE)
    write_run(tmp_path / "other", BASELINE, vector="v", alpha=1.0, engine={"dtype": "bfloat16"})
    result = _run(str(tmp_path), monkeypatch=monkeypatch)
    assert result.exit_code == 1 and result.stdout == ""
    assert 'engine.dtype ("bfloat16", "float32")' in result.stderr


def test_a_single_run_has_its_own_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "only", [True] * 12 + [False] * 8)
    result = _run(str(run.path), monkeypatch=monkeypatch)
    assert result.exit_code == 0
    assert "60.0%" in result.stdout and "against" not in result.stdout and "Holm" not in result.stdout


def test_names_from_files_do_not_steer_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", [outcome("a", True)], task="[red]\x1b[31mevil", prompt={"name": "[bold]\x1b]0;x"})
    result = _run(str(run.path), monkeypatch=monkeypatch)
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout and "[red]" in result.stdout and "[bold]" in result.stdout


def test_where_nothing_was_measured_there_is_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = _run(str(tmp_path), monkeypatch=monkeypatch)
    assert result.exit_code == 1
    assert "holds no run" in result.stderr


def test_controls_have_a_table_of_their_own_that_fits_eighty_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "target", BASELINE)
    write_run(tmp_path / "vector-think", [True] * 380 + [False] * 120, vector="v", alpha=1.0)
    for number in range(1, 20):
        write_run(tmp_path / f"random-{number}", BASELINE, vector=f"r{number}", alpha=1.0, control="random")
    monkeypatch.setenv("COLUMNS", "80")
    lines = CliRunner().invoke(main, ["stats", str(tmp_path)]).stdout.splitlines()
    titles = [line.strip() for line in lines if "against target" in line]
    assert titles == ["against target", "controls, against target"]
    assert sum(line.split()[:1] == ["random-19"] for line in lines) == 2  # by itself, and against the target
    assert sum(line.split()[:1] == ["vector-think"] for line in lines) == 2  # its name is whole in both
    assert "0 of 19 vectors that carry nothing" in " ".join(lines) and max(map(len, lines)) <= 80


def test_on_dev_nobody_is_told_to_choose_alpha_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part, advised in (("dev", False), ("test", True)):
        benchmark = {"split": {"part": part}}
        write_run(tmp_path / part / "target", BASELINE, benchmark=benchmark)
        for alpha in (0.5, 1.0):
            verdicts = [True] * round(300 + 50 * alpha) + [False] * round(200 - 50 * alpha)
            write_run(tmp_path / part / f"plus-{alpha}", verdicts, vector="v", alpha=alpha, benchmark=benchmark)
        said = " ".join(_run(str(tmp_path / part), monkeypatch=monkeypatch).stdout.split())
        assert "the best of 2 alphas" in said
        assert ("choose alpha on other problems" in said) == advised


def test_runs_on_different_problems_are_said_to_have_no_counterpart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "target", BASELINE)
    write_run(tmp_path / "vector", BASELINE, task="sciq", vector="v", alpha=1.0)
    result = _run(str(tmp_path), monkeypatch=monkeypatch)
    assert " ".join(result.stdout.split()).count("the only run on these problems") == 2


def test_a_limit_stands_beside_the_number_of_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "only", [True] * 12 + [False] * 8, benchmark={"limit": 20})
    assert "20 problems (--limit 20)" in _run(str(run.path), monkeypatch=monkeypatch).stdout
