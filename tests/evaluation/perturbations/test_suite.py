"""The whole of `perturb`: the file it writes, byte for byte, and what it says where it cannot."""

import errno
import hashlib
import json
import os
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from reasonvec.cli import main
from reasonvec.errors import OutputError, UsageError
from reasonvec.evaluation.benchmarks import load_benchmark
from reasonvec.evaluation.perturbations import OPERATORS, perturb
from tests.evaluation.word_problems import ALL, real_data

GOLDEN = Path(__file__).parent / "golden.jsonl"
NOWHERE = Path("nowhere")
COUNTS = {("typo", 1): 1319, ("surface", 1): 1319, ("number-format", 1): 1196, ("shuffle", 1): 269,
          ("shuffle-all", 1): 1020, ("distract-off", 3): 1153, ("distract-in", 2): 735, ("numbers", 1): 472,
          ("numbers", 2): 435, ("numbers", 3): 390, ("compose", 1): 483, ("compose", 2): 477,
          ("premise", 1): 442}  # fmt: skip


def write_task(file, problems):
    file.write_text("".join(
        json.dumps({"id": problem.id, "question": problem.question, "answer": problem.solution}) + "\n"
        for problem in problems
    ))  # fmt: skip
    return str(file)


@pytest.fixture
def task(tmp_path):
    return write_task(tmp_path / "sample.jsonl", [sample.problem for sample in ALL])


def rows(file):
    header, *problems = map(json.loads, file.read_text().splitlines())
    return header, problems


def severities():
    return [(name, severity) for name, entry in OPERATORS.items() for severity in range(1, len(entry.severities) + 1)]


def golden_rows(tmp_path, task):
    for operator, severity in severities():
        out = tmp_path / f"{operator}-{severity}.jsonl"
        perturb(task, operator=operator, severity=severity, seed=7, out=out, data=NOWHERE)
        for row in rows(out)[1]:
            yield {"operator": operator, "severity": severity,
                   **{key: row[key] for key in ("id", "question", "answer", "gold", "gold_changed")}}  # fmt: skip


def test_the_suite_gives_the_bytes_that_a_person_has_read(tmp_path, task):
    """To be read again, and SUITE_VERSION raised, when it changes."""
    found = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in golden_rows(tmp_path, task))
    if os.environ.get("REASONVEC_WRITE_GOLDEN"):
        GOLDEN.write_text(found)
    assert found == GOLDEN.read_text()


@pytest.mark.parametrize(("operator", "severity"), severities())
def test_the_order_of_the_problems_does_not_matter(tmp_path, operator, severity):
    problems = [sample.problem for sample in ALL]
    found = []
    for name, order in (("there", problems), ("back", problems[::-1])):
        directory = tmp_path / name
        directory.mkdir()
        write_task(directory / "sample.jsonl", order)
        out = directory / "out.jsonl"
        perturb(str(directory / "sample.jsonl"), operator=operator, severity=severity, seed=3, out=out, data=NOWHERE)
        found.append(sorted(out.read_text().splitlines()[1:]))
    assert found[0] == found[1]


def test_the_header_counts_every_problem(tmp_path, task):
    out = tmp_path / "out.jsonl"
    made = perturb(task, operator="numbers", severity=1, seed=5, out=out, data=NOWHERE)
    header, problems = rows(out)
    assert header == made.header
    assert made.sha256 == hashlib.sha256(out.read_bytes()).hexdigest()
    assert header["problems"] == len(ALL) == header["applied"] + sum(header["left_out"].values())
    assert header["applied"] == len(problems) == 5
    assert header["share"] == round(5 / len(ALL), 6)
    assert header["left_out"]["a number with two possible sources"] == 1
    assert header["benchmark"]["files"] == {"sample.jsonl": hashlib.sha256(Path(task).read_bytes()).hexdigest()}
    assert (header["suite_version"], header["operator"], header["seed"]) == (1, "numbers", 5)


def test_a_perturbed_file_is_a_task_itself(tmp_path, task):
    out = tmp_path / "out.jsonl"
    perturb(task, operator="numbers", severity=1, seed=5, out=out, data=NOWHERE)
    read = {problem.id: problem for problem in load_benchmark(str(out), data=NOWHERE).problems}
    for row in rows(out)[1]:
        problem = read[row["id"]]
        assert (problem.question, problem.gold, problem.kind) == (row["question"], row["gold"], "number")
        assert problem.solution == row["answer"]
    again = tmp_path / "again.jsonl"
    perturb(str(out), operator="premise", severity=1, seed=5, out=again, data=NOWHERE)
    assert {row["kind"] for row in rows(again)[1]} == {"text"}


def test_an_existing_file_is_kept_without_force(tmp_path, task):
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists already.*--force"):
        perturb(task, operator="typo", severity=1, seed=0, out=out, data=NOWHERE)
    assert out.read_text() == "mine"
    perturb(task, operator="typo", severity=1, seed=0, out=out, data=NOWHERE, force=True)
    assert rows(out)[0]["operator"] == "typo"


def test_a_failure_leaves_nothing(tmp_path, task, monkeypatch):
    before = sorted(tmp_path.iterdir())

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OutputError, match="out.jsonl cannot be written: No space left on device. Nothing was left there"
    ):
        perturb(task, operator="typo", severity=1, seed=0, out=tmp_path / "out.jsonl", data=NOWHERE)
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_comes_into_being_meanwhile_is_kept(tmp_path, task, monkeypatch):
    out, link = tmp_path / "out.jsonl", os.link

    def raced(source, target):
        out.write_text("theirs")
        link(source, target)

    monkeypatch.setattr(os, "link", raced)
    with pytest.raises(OutputError, match="came into being"):
        perturb(task, operator="typo", severity=1, seed=0, out=out, data=NOWHERE)
    assert out.read_text() == "theirs"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.jsonl", "sample.jsonl"]


@pytest.mark.parametrize(
    ("task_name", "arguments", "message"),
    [
        (None, {"operator": "typos"}, "'typos' is no operator; there are typo, surface, number-format, shuffle"),
        (None, {"severity": 4}, "typo has no severity 4. It has 0: the same problems unchanged; 1: 5% of words; 2:"),
        (None, {"severity": -1}, "typo has no severity -1"),
        (None, {"operator": "surface", "severity": 2}, "surface has no severity 2"),
        ("humaneval", {}, "humaneval is not perturbed"),
        ("bbh", {}, "bbh is not perturbed"),
        ("bbh/navigate", {}, "bbh/navigate is not perturbed"),
    ],
)
def test_mistakes_are_usage_errors(tmp_path, task, task_name, arguments, message):
    with pytest.raises(UsageError) as error:
        perturb(task_name or task, **{"operator": "typo", "severity": 1, "seed": 0, **arguments},
                out=tmp_path / "out.jsonl", data=NOWHERE)  # fmt: skip
    assert message in str(error.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_an_operator_that_applies_to_nothing_writes_nothing(tmp_path):
    file = tmp_path / "one.jsonl"
    file.write_text('{"question": "Why?", "answer": "1"}\n')
    with pytest.raises(UsageError, match=r"numbers applies to none of the 1 problems of .*: no worked solution \(1\)"):
        perturb(str(file), operator="numbers", severity=1, seed=0, out=tmp_path / "out.jsonl", data=NOWHERE)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(("out", "message"), [("missing/out.jsonl", "missing is no directory"),
                                              ("", "is a directory; the output is one file")])  # fmt: skip
def test_a_place_that_cannot_be_written_is_found_first(tmp_path, out, message):
    with pytest.raises(OutputError, match=message):
        perturb("no task at all", operator="typo", severity=1, seed=0, out=tmp_path / out, data=NOWHERE)


def test_a_directory_that_may_not_be_written_to_is_named_and_found_first(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK | os.X_OK)  # root may write everywhere
    with pytest.raises(OutputError, match=r"out\.jsonl cannot be written: .* may not be written to"):
        perturb("no task at all", operator="typo", severity=1, seed=0, out=tmp_path / "out.jsonl", data=NOWHERE)


def test_a_place_that_refuses_a_file_is_named_as_it_was_given(tmp_path, task, monkeypatch):
    def full(**named):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / ".out.jsonl.xyz"))

    monkeypatch.setattr(tempfile, "mkstemp", full)
    with pytest.raises(OutputError, match=r"/out\.jsonl cannot be written: No space left on device\. Nothing was left"):
        perturb(task, operator="typo", severity=1, seed=0, out=tmp_path / "out.jsonl", data=NOWHERE)


@pytest.mark.parametrize("there", [False, True])
def test_a_file_system_without_hard_links_serves_too(tmp_path, task, monkeypatch, there):
    out = tmp_path / "out.jsonl"

    def refused(source, destination):
        if there:
            out.write_text("another's")
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    if there:
        with pytest.raises(OutputError, match="came into being"):
            perturb(task, operator="typo", severity=1, seed=0, out=out, data=NOWHERE)
        assert out.read_text() == "another's"
    else:
        made = perturb(task, operator="typo", severity=1, seed=0, out=out, data=NOWHERE)
        assert hashlib.sha256(out.read_bytes()).hexdigest() == made.sha256
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_command_prints_the_share_and_the_reasons(tmp_path, task):
    arguments = ["perturb", task, "--operator", "numbers", "--seed", "5", "--out", str(tmp_path / "out.jsonl")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert f"5 of {len(ALL)} problems (35.7%)" in result.stdout
    assert "a number from nowhere" in result.stdout
    assert hashlib.sha256((tmp_path / "out.jsonl").read_bytes()).hexdigest() in result.stdout
    assert "Next: reasonvec perturb" in result.stderr
    assert CliRunner().invoke(main, arguments).exit_code == 1
    document = CliRunner().invoke(main, [*arguments, "--force", "--json"])
    assert json.loads(document.stdout)["applied"] == 5


def test_a_mistake_on_the_command_line_is_one_message(tmp_path):
    result = CliRunner().invoke(main, ["perturb", "gsm8", "--operator", "typo", "--out", str(tmp_path / "o.jsonl")])
    assert result.exit_code == 2
    assert result.stderr.startswith("reasonvec: 'gsm8' is no task that is known. Did you mean gsm8k")


@pytest.mark.parametrize(("operator", "severity"), COUNTS)
def test_how_many_problems_of_gsm8k_each_operator_applies_to(tmp_path, operator, severity):
    """The table in docs/evaluation.md."""
    made = perturb("gsm8k", operator=operator, severity=severity, seed=0, out=tmp_path / "out.jsonl", data=real_data())
    assert made.header["applied"] == COUNTS[operator, severity]


def test_what_severity_0_would_lack_is_not_offered(tmp_path, task):
    """`numbers` applies at severity 2 to problems that it does not apply to at 1; severity 0 writes those of 1."""
    for severity, offered in ((1, "--severity 0"), (2, "reasonvec evaluate TARGET --task")):
        out = tmp_path / f"{severity}.jsonl"
        made = CliRunner().invoke(main, ["perturb", task, "--operator", "numbers", "--severity", str(severity),
                                         "--out", str(out)])  # fmt: skip
        assert made.exit_code == 0 and offered in made.stderr, made.output
