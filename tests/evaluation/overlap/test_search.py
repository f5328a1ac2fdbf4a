"""The search in training files made up for it: copies that are verbatim, re-cased, re-spaced and partial."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from click.testing import CliRunner

from reasonvec.cli import main
from reasonvec.errors import BenchmarkError, UsageError
from reasonvec.evaluation.overlap import find_overlap, search
from tests.evaluation.word_problems import ALL, real_data

NOWHERE = Path("nowhere")
QUESTIONS = {sample.problem.id.removeprefix("sample/"): sample.problem.question for sample in ALL}
UNRELATED = "A lighthouse keeper reads one chapter each evening and never counts the ships that pass by at dawn."


@pytest.fixture
def task(tmp_path):
    file = tmp_path / "sample.jsonl"
    file.write_text("".join(json.dumps({"id": name, "question": text, "answer": "1"}) + "\n"
                            for name, text in QUESTIONS.items()))  # fmt: skip
    return str(file)


def training(tmp_path, *rows, name="train.jsonl"):
    file = tmp_path / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def found(task, *files):
    overlap = find_overlap(files, task=task, data=NOWHERE)
    return overlap, {problem.id: problem for problem in overlap.problems}


@pytest.mark.parametrize(
    ("change", "how"),
    [
        (lambda text: text, "exact"),
        (lambda text: f"Question: {text} Answer:", "exact"),
        (str.upper, "normalised"),
        (lambda text: "\n".join(text.split()), "normalised"),
        (lambda text: text.replace(".", " ;").replace("?", ""), "normalised"),
        (lambda text: text.replace("a", "a").replace("14", "１４"), "normalised"),
        (lambda text: " ".join(text.split()[:12]), "partial"),
        (lambda text: text.replace("visits", "trips"), "partial"),
        (lambda text: " ".join(text.split()[:7]), None),
        (lambda text: " ".join(reversed(text.split())), None),
        (lambda text: "", None),
    ],
)
def test_how_a_copy_is_told(tmp_path, task, change, how):
    file = training(tmp_path, {"text": UNRELATED}, {"text": change(QUESTIONS["marbles"])})
    overlap, problems = found(task, file)
    assert {name: problem.how for name, problem in problems.items()} == ({"marbles": how} if how else {})
    if how:
        assert (problems["marbles"].file, problems["marbles"].line) == (str(file), 2)
        assert (problems["marbles"].rows, overlap.rows) == (1, 1)
        whole = problems["marbles"].runs == len(QUESTIONS["marbles"].split()) - 7
        assert whole
        assert (problems["marbles"].found == problems["marbles"].runs) == (how != "partial")


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": QUESTIONS["tank"]}]},
        {"prompt": {"parts": [["x", [QUESTIONS["tank"]]]]}, "reward": 1.5},
        [QUESTIONS["tank"]],
        QUESTIONS["tank"],
    ],
    ids=["chat", "nested", "list", "text"],
)
def test_every_text_of_a_row_is_looked_through(tmp_path, task, row):
    _, problems = found(task, training(tmp_path, row))
    assert problems["tank"].how == "exact"


def test_names_of_fields_are_no_text(tmp_path, task):
    assert not found(task, training(tmp_path, {QUESTIONS["tank"]: 1}))[1]


def test_halves_in_two_fields_are_no_copy(tmp_path, task):
    words = QUESTIONS["pens"].split()
    _, problems = found(task, training(tmp_path, {"a": " ".join(words[:9]), "b": " ".join(words[9:])}))
    assert problems["pens"].how == "partial"
    assert problems["pens"].found < problems["pens"].runs


def test_a_question_of_fewer_than_8_words_is_found_whole_alone(tmp_path):
    task = tmp_path / "short.jsonl"
    task.write_text('{"id": "s", "question": "What is 17 + 25?", "answer": "42"}\n'
                    '{"id": "none", "question": "?!", "answer": "1"}\n')  # fmt: skip
    overlap, problems = found(str(task), training(tmp_path, {"text": "so what is 17 25 then"}))
    assert (problems["s"].how, problems["s"].runs) == ("normalised", 1)
    assert overlap.unsearchable == ("none",)
    assert not found(str(task), training(tmp_path, {"text": "what is 17"}))[1]


def test_rows_are_counted_once_and_the_surest_place_is_named(tmp_path, task):
    question = QUESTIONS["phone"]
    first = training(tmp_path, {"a": question.lower(), "b": question.lower()}, {"a": UNRELATED}, name="a.jsonl")
    second = training(tmp_path, {"a": question[:70]}, {"a": question}, {"a": question}, name="b.jsonl")
    overlap, problems = found(task, first, second)
    phone = problems["phone"]
    assert (phone.how, phone.rows, phone.file, phone.line) == ("exact", 4, str(second), 2)
    assert overlap.rows == 4
    assert overlap.counts == {"exact": 1, "normalised": 0, "partial": 0}
    assert [(file["rows"], file["bytes"]) for file in overlap.files] == [
        (2, first.stat().st_size), (3, second.stat().st_size),
    ]  # fmt: skip


@pytest.mark.parametrize("batch", [1, 300, 1 << 20])
def test_what_is_found_does_not_depend_on_the_batch(tmp_path, task, monkeypatch, batch):
    monkeypatch.setattr(search, "BATCH", batch)
    rows = [{"t": text[: 20 + 11 * n]} for n, text in enumerate(QUESTIONS.values())]
    rows += [{"t": UNRELATED, "u": text.upper()} for text in list(QUESTIONS.values())[::3]]
    overlap, _ = found(task, training(tmp_path, *rows))
    monkeypatch.undo()
    assert overlap == found(task, tmp_path / "train.jsonl")[0]


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path, task):
    plain = training(tmp_path, {"text": QUESTIONS["cake"]}).read_bytes()
    file = tmp_path / "marked.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + plain)
    _, problems = found(task, file)
    assert (problems["cake"].how, problems["cake"].line) == ("exact", 1)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_compressed_files(tmp_path, task, ending):
    plain = training(tmp_path, {"text": UNRELATED}, {"text": QUESTIONS["cake"]}).read_bytes()
    file = tmp_path / f"train.jsonl{ending}"
    # two members, as tools that append leave them
    halves = plain[:50], plain[50:]
    compress = gzip.compress if ending == ".gz" else zstandard.ZstdCompressor().compress
    file.write_bytes(b"".join(map(compress, halves)))
    overlap, problems = found(task, file)
    assert (problems["cake"].how, problems["cake"].line) == ("exact", 2)
    assert overlap.files[0]["bytes"] == len(plain)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": \n', "train.jsonl line 2 is no JSON: "),
        (b'{"a": 1} x\n', "train.jsonl line 1 is no JSON: something follows the value at character 8"),
        (b"\xff\n", "train.jsonl line 1 is no JSON: "),
        (b"[" * 100_000, "train.jsonl line 1 is no JSON: "),
        (b"nonsense", "train.jsonl line 1 is no JSON: no value at character 0"),
    ],
)
def test_a_line_that_cannot_be_read_is_an_error(tmp_path, task, content, message):
    file = tmp_path / "train.jsonl"
    file.write_bytes(content)
    with pytest.raises(BenchmarkError) as error:
        found(task, file)
    assert message in str(error.value)
    assert "cannot be called free of overlap" in str(error.value)


def test_a_line_without_end_is_refused(tmp_path, task, monkeypatch):
    monkeypatch.setattr("reasonvec.evaluation.overlap.training.MAX_LINE", 100)
    with pytest.raises(BenchmarkError, match=r"line 1 has more than 100 bytes.*jq -c"):
        found(task, training(tmp_path, {"a": "x" * 200}))


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_file_that_is_cut_off_is_refused(tmp_path, task, ending):
    content = b'{"a": "%s"}\n' % bytes(range(97, 123)) * 200
    whole = gzip.compress(content) if ending == "gz" else zstandard.compress(content)
    file = tmp_path / f"train.jsonl.{ending}"
    for damaged in (whole[:20], b"nonsense" + whole, whole + whole[:-3]):
        file.write_bytes(damaged)
        with pytest.raises(BenchmarkError, match=r"cannot be read after line \d+: "):
            found(task, file)


def test_all_files_that_cannot_be_read_are_named_first(tmp_path, task):
    with pytest.raises(BenchmarkError) as error:
        found(task, tmp_path / "a.parquet", tmp_path / "b.jsonl", tmp_path)
    for part in (
        "a.parquet does not end in .jsonl",
        "b.jsonl cannot be read: No such file",
        f"{tmp_path} does not end",
    ):
        assert part in str(error.value)


def test_no_file_is_a_usage_error(task):
    with pytest.raises(UsageError, match="No training file is named"):
        find_overlap([], task=task, data=NOWHERE)


def test_the_command_says_who_overlaps_and_ends_with_3(tmp_path, task):
    clean, dirty = training(tmp_path, {"t": UNRELATED}, name="c.jsonl"), training(tmp_path, {"t": QUESTIONS["tank"]})
    nothing = CliRunner().invoke(main, ["overlap", str(clean), "--task", task])
    assert nothing.exit_code == 0, nothing.output
    something = CliRunner().invoke(main, ["overlap", str(clean), str(dirty), "--task", task])
    assert something.exit_code == 3
    assert "exact: verbatim" in something.stdout
    assert "tank" in something.stdout
    document = CliRunner().invoke(main, ["overlap", str(clean), str(dirty), "--task", task, "--json"])
    assert document.exit_code == 3
    parsed = json.loads(document.stdout)
    assert parsed["counts"] == {"exact": 1, "normalised": 0, "partial": 0}
    assert parsed["problems"][0]["first"] == {"file": str(dirty), "line": 1}
    assert parsed["training_rows_overlapping"] == 1


def test_memory_does_not_grow_with_the_training_data(tmp_path, task):
    """Two sizes of one kind of data, each in a process of its own: 24 MB more of it, and a peak not 6 MB higher."""
    texts = (f"{UNRELATED} {n} {QUESTIONS['tank'] if n % 50 == 0 else UNRELATED}" for n in range(20_000))
    rows = "".join(json.dumps({"t": text}) + "\n" for text in texts)
    peaks = []
    for copies in (2, 8):
        file = tmp_path / f"{copies}.jsonl"
        file.write_text(rows * copies)
        code = (
            "from pathlib import Path\nfrom reasonvec.evaluation.overlap import find_overlap\n"
            f"find_overlap([Path({str(file)!r})], task={task!r}, data=Path('x'))\n"
            # not ru_maxrss, which a process inherits from the one that started it
            "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peaks.append(1024 * int(run.stdout))
    assert 6 * len(rows) > 24e6
    assert peaks[1] - peaks[0] < 6e6


def test_copies_of_gsm8k_in_four_disguises(tmp_path):
    """As in the released training data of the method's authors, which holds test problems; here with known truth."""
    from reasonvec.evaluation.benchmarks import load_benchmark

    data = real_data()
    problems = load_benchmark("gsm8k", data=data).problems
    rows = [{"text": UNRELATED}]
    for place, problem in enumerate(problems[:400]):
        question = problem.question
        words = question.split()
        disguise = (question, question.upper(), "  ".join(words), " ".join(words[: max(9, len(words) // 2)]))[place % 4]
        rows.append({"prompt": f"Solve: {disguise}", "completion": "..."})
    overlap = find_overlap([training(tmp_path, *rows)], task="gsm8k", data=data)
    how = {problem.id: problem.how for problem in overlap.problems}
    wanted = ("exact", "normalised", "normalised", "partial")
    for place in range(400):
        found_as, expected = how[f"gsm8k/test/{place}"], wanted[place % 4]
        # a question of single spaces stays as it is when they are set anew, and may be short or printed in capitals
        assert found_as == expected or (found_as, expected) in {("exact", "normalised")}, place
    others = [name for name in how if int(name.rsplit("/", 1)[1]) >= 400]
    assert len(others) < 40  # phrases of 8 words that two problems share
