"""Runs on disk: the same outcomes however often they are killed, and nothing lost whatever goes wrong."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from reasonvec.errors import OutputError, RunError
from reasonvec.evaluation import measuring
from reasonvec.evaluation.engines.interface import Sampling
from reasonvec.evaluation.runs import find_runs, load_run
from reasonvec.evaluation.runs.record import Recorder
from tests.evaluation.measuring.models import GOLDS, QUESTIONS, Scripted, checkpoint, says

SHORT = Sampling(max_new_tokens=6)
DRAWN = Sampling(samples=3, temperature=1.0, seed=4, max_new_tokens=5)


def measure(target, problems, out, *, sampling=SHORT, **more):
    settings = {"batch_size": 3, "part": "all", **more}
    return measuring.evaluate(target, tasks=[str(problems)], out=out, sampling=sampling, **settings)[0]


def lines(run):
    return (run / "outcomes.jsonl").read_bytes()


@pytest.mark.parametrize("sampling", [SHORT, DRAWN], ids=["greedy", "drawn"])
def test_a_run_cut_off_at_any_byte_goes_on_to_the_same_bytes(target, problems, tmp_path, sampling):
    whole = tmp_path / "whole"
    measure(target, problems, whole, sampling=sampling)
    content = lines(whole)
    cuts = [
        0,
        1,
        len(content) // 3,
        content.index(b"\n"),
        content.index(b"\n") + 1,
        len(content) // 2,
        len(content) - 1,
    ]
    for cut in cuts:
        killed = tmp_path / f"killed-{cut}"
        killed.mkdir()
        (killed / "run.json").write_bytes((whole / "run.json").read_bytes())
        (killed / "outcomes.jsonl").write_bytes(content[:cut])
        measure(target, problems, killed, sampling=sampling, resume=True)
        assert lines(killed) == content, cut
        assert (killed / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()


def test_a_run_killed_in_the_middle_goes_on_to_the_same_bytes(target, problems, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    measure(target, problems, whole, batch_size=1)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom reasonvec.evaluation import measuring\n"
        "from reasonvec.evaluation.engines.interface import Sampling\n"
        "measuring.evaluate(sys.argv[1], tasks=[sys.argv[2]], out=sys.argv[3], part='all', batch_size=1,\n"
        "                   sampling=Sampling(max_new_tokens=6),\n"
        "                   progress=lambda task, done, of: time.sleep(60 * (done > 1)))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(target), str(problems), str(killed)])
    while not (killed / "outcomes.jsonl").exists() or lines(killed).count(b"\n") < 2:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "summary.json").exists()
    assert 2 <= lines(killed).count(b"\n") < len(QUESTIONS)
    assert not load_run(killed).complete
    measure(target, problems, killed, batch_size=1, resume=True)
    assert lines(killed) == lines(whole)


def test_two_greedy_runs_are_the_same_bytes(target, problems, tmp_path):
    for name in ("one", "two"):
        measure(target, problems, tmp_path / name)
    for file in ("run.json", "outcomes.jsonl", "summary.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_every_problem_is_answered_once_for_each_sample(target, problems, tmp_path):
    measure(target, problems, tmp_path / "run", sampling=DRAWN)
    run = load_run(tmp_path / "run")
    assert run.complete
    found = [(outcome.id, outcome.sample) for outcome in run.outcomes]
    assert sorted(found) == [(f"mine/{number}", sample) for number in range(len(QUESTIONS)) for sample in range(3)]
    assert len({outcome.completion for outcome in run.by_id["mine/0"]}) > 1


def test_a_complete_run_is_left_as_it_is(target, problems, tmp_path):
    measure(target, problems, tmp_path / "run")
    before = lines(tmp_path / "run")
    measure(target, problems, tmp_path / "run", resume=True)
    assert lines(tmp_path / "run") == before
    with pytest.raises(OutputError, match=r"run exists already. Nothing that was measured is overwritten: go on with"):
        measure(target, problems, tmp_path / "run")


def test_another_configuration_is_refused_with_every_change_and_nothing_is_lost(target, problems, tmp_path):
    measure(target, problems, tmp_path / "run")
    before = lines(tmp_path / "run")
    other = checkpoint(tmp_path / "other", seed=1)
    with pytest.raises(RunError) as error:
        measure(other, problems, tmp_path / "run", prompt="think", sampling=Sampling(max_new_tokens=7), resume=True)
    message = str(error.value)
    assert "sampling.max_new_tokens is 7, was 6" in message
    assert 'prompt.name is "think", was "plain"' in message
    assert f'arm.checkpoint is "{other}", was "{target}"' in message
    assert "arm.fingerprint is " in message
    assert "What is recorded was left as it is." in message
    assert lines(tmp_path / "run") == before


def test_changed_problems_are_another_configuration(target, problems, tmp_path):
    measure(target, problems, tmp_path / "run")
    rows = problems.read_text().splitlines()
    problems.write_text("\n".join([rows[0].replace('"9"', '"10"'), *rows[1:]]) + "\n")
    with pytest.raises(RunError, match=r"benchmark.files.*benchmark.problems_sha256"):
        measure(target, problems, tmp_path / "run", resume=True)


def test_a_resumed_run_keeps_the_batch_size_it_was_begun_with(target, problems, tmp_path):
    measure(target, problems, tmp_path / "run", batch_size=3)
    measure(target, problems, tmp_path / "run", batch_size=None, resume=True)
    with pytest.raises(RunError, match="engine.batch_size is 2, was 3"):
        measure(target, problems, tmp_path / "run", batch_size=2, resume=True)


def test_an_empty_directory_is_begun(target, problems, tmp_path):
    (tmp_path / "run").mkdir()
    assert measure(target, problems, tmp_path / "run", resume=True).summary.problems == len(QUESTIONS)


def test_a_run_killed_while_its_configuration_was_written_is_begun_anew(target, problems, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".run.json.x1y2z3").write_text('{"format": "reas')
    assert measure(target, problems, tmp_path / "run", resume=True).summary.problems == len(QUESTIONS)
    assert load_run(tmp_path / "run").complete


def test_a_directory_of_something_else_is_not_resumed(target, problems, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("dear")
    with pytest.raises(OutputError, match="exists already"):
        measure(target, problems, tmp_path / "run")
    with pytest.raises(RunError, match=r"is no run: run.json cannot be read"):
        measure(target, problems, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "thesis.tex").read_text() == "dear"


def test_a_full_disk_keeps_what_was_recorded(target, problems, tmp_path, monkeypatch):
    measure(target, problems, tmp_path / "whole")
    flush, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        flush(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("reasonvec.evaluation.runs.record.os.fsync", full)
        with pytest.raises(OutputError, match=r"cannot be written: No space left on device. The outcomes before this"):
            measure(target, problems, tmp_path / "run")
    assert lines(tmp_path / "run").count(b"\n") >= 3
    measure(target, problems, tmp_path / "run", resume=True)
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{", "is no outcome"),
        (b"[]", "it is no JSON object"),
        (b'{"id": "mine/0"}', "correct, prompt_sha256, sample, task is missing"),
        (b'{"id": 3, "task": "t", "sample": 0, "prompt_sha256": "", "correct": true}', "`id` is 3"),
        (b'{"id": "a", "task": "t", "sample": true, "prompt_sha256": "", "correct": true}', "`sample` is True"),
        (b'{"id": "a", "task": "t", "sample": 0, "prompt_sha256": "", "correct": true, "x": 1}', "x is no field"),
        (b"[" * 100_000, "is no outcome"),
        (b"\xff\xfe", "is no outcome"),
    ],
)
def test_a_damaged_line_is_one_message(target, problems, tmp_path, line, complaint):
    measure(target, problems, tmp_path / "run")
    (tmp_path / "run" / "outcomes.jsonl").write_bytes(line + b"\n" + lines(tmp_path / "run"))
    with pytest.raises(RunError, match=r"outcomes.jsonl, line 1, ") as error:
        load_run(tmp_path / "run")
    assert complaint in str(error.value)


def test_what_is_no_run_is_told_by_what_it_is(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name, what in (("file", "is a file"), ("empty", "holds no run"), ("nowhere", "does not exist")):
        with pytest.raises(RunError, match=f"{name} {what}. A run is a directory with run.json"):
            find_runs(tmp_path / name)


def test_two_writers_are_noticed(target, problems, tmp_path):
    measure(target, problems, tmp_path / "run")
    content = lines(tmp_path / "run")
    (tmp_path / "run" / "outcomes.jsonl").write_bytes(content + content)
    with pytest.raises(RunError, match=f"line {len(QUESTIONS) + 1}, answers mine/.* a second time"):
        load_run(tmp_path / "run")


def test_a_model_that_answers_nothing_is_told_and_kept(target, problems, tmp_path, monkeypatch):
    scripted(monkeypatch, Scripted(says(" \n", tokens=1)))
    with pytest.raises(RunError, match="all 7 completions of .* are empty: the model ended at once"):
        measure(target, problems, tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert run.complete
    assert not any(outcome.correct for outcome in run.outcomes)


def test_some_empty_completions_are_a_warning(target, problems, tmp_path, monkeypatch):
    answer = says("")
    scripted(monkeypatch, Scripted(lambda prompt, n: answer(prompt, n) if "Tom" in prompt else says("9")(prompt, n)))
    found = measure(target, problems, tmp_path / "run")
    assert found.warnings == (f"1 of the 7 completions of {problems} are empty. They count as wrong.",)
    assert found.summary.correct == 1


def test_outcomes_are_on_the_disk_before_the_next_batch(target, problems, tmp_path, monkeypatch):
    engine = Scripted(says("17"), batch_size=2)
    scripted(monkeypatch, engine)
    seen = []
    measuring.evaluate(
        target, tasks=[str(problems)], out=tmp_path / "run", part="all", sampling=SHORT,
        progress=lambda task, done, total: seen.append((done, total, lines(tmp_path / "run").count(b"\n"))),
    )  # fmt: skip
    assert seen == [(0, 7, 0), (2, 7, 2), (4, 7, 4), (6, 7, 6), (7, 7, 7)]
    assert [len(prompts) for prompts in engine.asked] == [2, 2, 2, 1]


def test_what_a_run_says_of_itself(target, problems, tmp_path):
    measure(target, problems, tmp_path / "run", prompt="think", limit=5)
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    assert document["prompt"]["instruction"] == "Think step by step."
    assert document["prompt"]["example"]["text"].startswith("<|user|> Think step by step. ")
    assert document["benchmark"]["limit"] == 5
    assert document["benchmark"]["problems"] == 5
    assert document["benchmark"]["split"] == {"part": "all"}
    assert set(document["engine"]["versions"]) == {"torch", "transformers", "lm_eval"}
    assert set(document["engine"]) == {"name", "device", "dtype", "threads", "batch_size", "versions"}
    assert document["engine"]["dtype"] == "float32"
    assert document["arm"]["small_files"].keys() >= {"config.json", "chat_template.jinja", "tokenizer.json"}
    assert document["arm"]["vector"] is None
    outcome = load_run(tmp_path / "run").outcomes[0]
    assert len(outcome.prompt_sha256) == 64


def test_prompt_digests_tell_plain_from_think(target, problems, tmp_path):
    for prompt in ("plain", "think"):
        measure(target, problems, tmp_path / prompt, prompt=prompt)
    plain, think = ({o.id: o.prompt_sha256 for o in load_run(tmp_path / p).outcomes} for p in ("plain", "think"))
    assert plain.keys() == think.keys()
    assert not set(plain.values()) & set(think.values())


def test_several_tasks_are_several_runs(target, problems, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"question": "start with 2, add 2.", "answer": "4"}) + "\n")
    found = measuring.evaluate(
        target, tasks=[str(problems), str(other)], out=tmp_path / "runs", part="all", sampling=SHORT
    )
    assert [each.out for each in found] == [tmp_path / "runs" / "mine", tmp_path / "runs" / "other"]
    assert all(load_run(each.out).complete for each in found)


def test_a_recorder_is_closed_whatever_happens(target, problems, tmp_path, monkeypatch):
    def fail(prompt, sample):
        raise KeyboardInterrupt

    closed = []
    close = Recorder.close
    monkeypatch.setattr(Recorder, "close", lambda self: (closed.append(self.path), close(self)))
    scripted(monkeypatch, Scripted(fail))
    with pytest.raises(KeyboardInterrupt):
        measure(target, problems, tmp_path / "run")
    assert closed == [tmp_path / "run"]


def scripted(monkeypatch, engine):
    """Measure with `engine` instead of a model."""
    from contextlib import nullcontext

    monkeypatch.setattr(measuring, "_opened", lambda *_, **__: nullcontext((engine, None)))


assert len(GOLDS) == len(QUESTIONS)
