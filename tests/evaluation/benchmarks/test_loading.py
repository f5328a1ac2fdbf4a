"""Tasks by name and files of one's own: what is read, and what is said where that cannot be."""

import hashlib
import json
import re
from fractions import Fraction
from pathlib import Path

import pytest

from reasonvec.errors import BenchmarkError, UsageError
from reasonvec.evaluation.benchmarks import load_benchmark
from reasonvec.evaluation.benchmarks.catalog import GROUPS, TASKS
from tests.evaluation.word_problems import real_data

DOCUMENT = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text()
NOTED = {"gsm8k": 1319, "gsm8k/train": 7473, "humaneval": 164, "sciq": 1000, "sciq/valid": 1000, "math500": 500,
         "aime24": 30, "amc23": 40, "minerva": 272, "olympiadbench": 675, "svamp": 1000, "asdiv": 2215,
         "multiarith": 600, "bbh": 6511}  # fmt: skip


def own(tmp_path, *lines):
    file = tmp_path / "mine.jsonl"
    file.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return file


def load(file):
    return load_benchmark(str(file), data=Path("nowhere"))


def test_every_task_is_documented_with_its_file_and_licence():
    for name, task in TASKS.items():
        shown = name if not name.startswith("bbh/") else "bbh"
        row = next(line for line in DOCUMENT.splitlines() if line.startswith(f"| `{shown}`"))
        assert re.sub(r"bbh/bbh/\w+", "bbh/bbh/NAME", task.file.path) in row
        assert task.origin.licence.split(",")[0].split(":")[0] in row, name


def test_every_checksum_is_one_and_no_path_is_there_twice():
    files = [file for task in TASKS.values() for file in (task.file, task.prompt) if file]
    assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in files)
    assert len({file.path for file in files}) == len(files) == 13 + 27 + 27
    assert sum(TASKS[name].problems for name in GROUPS["bbh"]) == 6511


@pytest.mark.parametrize("task", NOTED)
def test_the_real_files_hold_what_their_sources_say(task):
    benchmark = load_benchmark(task, data=real_data())
    assert len(benchmark.problems) == NOTED[task]
    assert len({problem.id for problem in benchmark.problems}) == NOTED[task]
    assert all(problem.question.strip() and problem.gold.strip() for problem in benchmark.problems)
    assert all(Fraction(problem.gold) is not None for problem in benchmark.problems if problem.kind == "number")
    assert len(benchmark.prompts) == (27 if task == "bbh" else 0)


def test_a_missing_file_is_named_with_its_source_and_licence(tmp_path):
    with pytest.raises(BenchmarkError) as error:
        load_benchmark("gsm8k", data=tmp_path)
    message = str(error.value)
    assert f"gsm8k needs 1 file, of which 1 is missing: {tmp_path}/gsm8k/test.jsonl." in message
    assert "licence: MIT" in message
    assert ("https://raw.githubusercontent.com/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c/"
            "grade_school_math/data/test.jsonl" in message)  # fmt: skip
    assert "--data" in message


def test_all_missing_files_are_counted(tmp_path):
    with pytest.raises(BenchmarkError, match="bbh needs 54 files, of which 54 are missing: .* and 49 more"):
        load_benchmark("bbh", data=tmp_path)
    with pytest.raises(BenchmarkError, match="CC BY-NC 3.0: not for commercial use"):
        load_benchmark("sciq", data=tmp_path)


def test_another_file_is_refused_with_both_checksums(tmp_path):
    file = tmp_path / "gsm8k" / "test.jsonl"
    file.parent.mkdir()
    file.write_text('{"question": "Q", "answer": "#### 1"}\n')
    with pytest.raises(BenchmarkError) as error:
        load_benchmark("gsm8k", data=tmp_path)
    message = str(error.value)
    assert hashlib.sha256(file.read_bytes()).hexdigest() in message
    assert TASKS["gsm8k"].file.sha256 in message
    assert "give its path as the task" in message


@pytest.mark.parametrize(
    ("name", "hint"),
    [("gsm8", "Did you mean gsm8k"), ("bbh/navigat", "Did you mean bbh/navigate"), ("Math500", "Did you mean math500"),
     ("GSM8K", "Did you mean gsm8k"), ("HumanEval", "Did you mean humaneval"), ("BBH", "Did you mean bbh"),
     ("qqqq", "Known are aime24, amc23, asdiv, bbh, gsm8k")],
)  # fmt: skip
def test_an_unknown_task_is_told_the_nearest_names(name, hint, tmp_path):
    with pytest.raises(UsageError, match=f"'{name}' is no task that is known. {hint}"):
        load_benchmark(name, data=tmp_path)


def test_a_directory_in_a_files_place_is_one_message(tmp_path):
    (tmp_path / "gsm8k" / "test.jsonl").mkdir(parents=True)
    with pytest.raises(BenchmarkError, match="it is a directory"):
        load_benchmark("gsm8k", data=tmp_path)


def test_a_file_of_ones_own(tmp_path):
    file = own(tmp_path, {"question": "What is 2 + 3?", "answer": 5}, b"",
               {"id": "x", "task": "t", "question": "And?", "answer": "1.5+1=<<1.5+1=2.5>>2.5\n#### 2.50"},
               {"question": "Who?", "answer": "Jo", "details": {"why": 1}})  # fmt: skip
    benchmark = load(file)
    first, second, third = benchmark.problems
    assert (first.gold, first.kind, first.solution, first.task) == ("5", "number", None, "mine")
    assert (second.id, second.task, second.gold) == ("x", "t", "2.5")
    assert second.solution is not None and second.solution.startswith("1.5+1")
    assert (third.gold, third.kind, third.details) == ("Jo", "text", {"why": 1})
    assert benchmark.files == {"mine.jsonl": hashlib.sha256(file.read_bytes()).hexdigest()}


def test_ids_without_an_id_follow_the_question_and_not_the_line(tmp_path):
    rows = [{"question": f"What is {number} + 1?", "answer": number + 1} for number in range(9)]
    there = {problem.id: problem.question for problem in load(own(tmp_path, *rows)).problems}
    back = {problem.id: problem.question for problem in load(own(tmp_path, *rows[::-1])).problems}
    assert there == back
    assert len(there) == 9


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([b"{"], "line 1: "),
        ([[1]], "line 1: a JSON object is expected, not list"),
        ([{"question": "Q"}], "line 1: `answer` is missing, empty or neither text nor a number"),
        ([{"question": " ", "answer": "1"}], "line 1: `question` is missing, empty"),
        ([{"question": "Q", "answer": True}], "line 1: `answer` is missing, empty or neither"),
        ([{"question": "Q", "answer": "it is ####"}], "nothing follows the last ####"),
        ([{"question": "Q", "answer": "1", "details": []}], "`details` is no JSON object"),
        ([{"question": "Q", "answer": "a", "kind": "number"}], "`kind` 'number' does not go with gold 'a'"),
        ([{"question": "Q", "answer": "a", "kind": "guess"}], "`kind` 'guess' does not go"),
        ([{"question": "\ud800", "answer": "a"}], "half of a surrogate pair"),
        ([{"question": "Q", "answer": "1", "details": {"x": "\ud800"}}], "surrogates not allowed"),
        ([b'{"question": "Q", "answer": "1", "details": {"x": NaN}}'], "NaN is no JSON"),
        ([{"question": "1" * 1000, "answer": "1"}], "a number of 1000 digits or more"),
        ([b'{"question": "Q", "answer": ' + b"1" * 5000 + b"}"], "line 1: "),
        ([b"[" * 100_000], "line 1: "),
        ([{"question": "Q", "answer": "1"}] * 2, "lines 1, 2 have one id, 'mine/"),
        ([b""], "it holds no problem"),
        ([{"question": "Q"}] * 7, "; and 2 more"),
        ([b"\xff"], "line 1: "),
    ],
)  # fmt: skip
def test_a_line_that_is_wrong_is_named_and_nothing_is_left_out(tmp_path, lines, message):
    with pytest.raises(BenchmarkError) as error:
        load(own(tmp_path, *lines))
    assert message in str(error.value)
    assert "mine.jsonl cannot be measured on" in str(error.value)


def test_all_wrong_lines_are_in_one_error(tmp_path):
    with pytest.raises(BenchmarkError, match=r"line 1: .*line 3: "):
        load(own(tmp_path, {"question": "Q"}, {"question": "Q", "answer": "1"}, {"answer": "1"}))


def test_a_file_of_ones_own_that_is_missing(tmp_path):
    with pytest.raises(BenchmarkError, match="mine.jsonl is missing. A task that ends in .jsonl is a file of your own"):
        load(tmp_path / "mine.jsonl")
