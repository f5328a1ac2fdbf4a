"""A run belongs to one process, one configuration and the problems that it names; whatever cuts it off, it goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest
from click.testing import CliRunner

from reasonvec.cli import main
from reasonvec.errors import OutputError, RunError, UsageError
from reasonvec.evaluation import measuring
from reasonvec.evaluation.comparison import compare_runs
from reasonvec.evaluation.engines.interface import Sampling
from reasonvec.evaluation.runs import load_run
from tests.evaluation.measuring.models import QUESTIONS, Scripted, says

SHORT = Sampling(max_new_tokens=6)


def measure(target, tasks, out, *, sampling=SHORT, **more):
    settings = {"batch_size": 2, "part": "all", **more}
    return measuring.evaluate(target, tasks=[str(task) for task in tasks], out=out, sampling=sampling, **settings)


def lines(run):
    return (run / "outcomes.jsonl").read_bytes()


def scripted(monkeypatch, engine):
    monkeypatch.setattr(measuring, "_opened", lambda *_, **__: nullcontext((engine, None)))
    return engine


@pytest.fixture
def other(tmp_path):
    file = tmp_path / "other.jsonl"
    file.write_text(json.dumps({"question": "start with 2, add 2.", "answer": "4"}) + "\n")
    return file


def test_a_second_process_on_the_same_run_is_refused_and_harms_nothing(target, problems, tmp_path, monkeypatch):
    heard = []

    def meanwhile(prompt, sample):
        if not heard:
            heard.append(1)
            with pytest.raises(OutputError, match="another process is writing to .*run. Wait for it, or end it"):
                measure(target, [problems], tmp_path / "run", resume=True)
        return says("17")(prompt, sample)

    scripted(monkeypatch, Scripted(meanwhile))
    measure(target, [problems], tmp_path / "run")
    assert heard
    assert load_run(tmp_path / "run").complete
    assert lines(tmp_path / "run").count(b"\n") == len(QUESTIONS)


def test_outcomes_that_went_missing_make_a_run_unfinished_whatever_its_summary_says(target, problems, tmp_path):
    measure(target, [problems], tmp_path / "run")
    whole = lines(tmp_path / "run")
    (tmp_path / "run" / "outcomes.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
    assert not load_run(tmp_path / "run").complete
    with pytest.raises(RunError, match="is unfinished: 3 of 7 completions are there"):
        compare_runs([tmp_path / "run"])
    measure(target, [problems], tmp_path / "run", resume=True)
    assert lines(tmp_path / "run") == whole


def test_every_earlier_run_is_looked_at_before_the_first_answer(target, problems, other, tmp_path, monkeypatch):
    engine = scripted(monkeypatch, Scripted(says("4")))
    measure(target, [other], tmp_path / "runs" / "other")
    before = list(engine.asked)
    with pytest.raises(RunError, match=r"runs/other was begun with another configuration: prompt.*think"):
        measure(target, [problems, other], tmp_path / "runs", resume=True, prompt="think")
    assert engine.asked == before
    assert not (tmp_path / "runs" / "mine").exists()


def test_the_runs_of_every_alpha_are_looked_at_before_the_weights_are_loaded(
    target, vector, problems, tmp_path, monkeypatch
):
    arm = {"vector": vector, "alpha": 1.0}
    measure(target, [problems], tmp_path / "at-1", sampling=Sampling(max_new_tokens=3), **arm)
    monkeypatch.setattr(measuring.harness, "load", lambda *_, **__: pytest.fail("the weights were loaded first"))
    with pytest.raises(
        RunError, match=r"at-1 was begun with another configuration: sampling.max_new_tokens is 6, was 3"
    ):
        measure(target, [problems], tmp_path / "at-{alpha}", resume=True, **{**arm, "alpha": (0.5, 1.0)})
    assert not (tmp_path / "at-0.5").exists()


def test_a_task_that_is_not_answered_at_all_does_not_keep_the_next_from_being_measured(
    target, problems, other, tmp_path, monkeypatch
):
    scripted(monkeypatch, Scripted(lambda prompt, n: says("4" if "start with 2, add 2" in prompt else "")(prompt, n)))
    with pytest.raises(RunError, match="all 7 completions of .*mine.jsonl .* are empty") as error:
        measure(target, [problems, other], tmp_path / "runs")
    assert str(error.value).endswith(f"The others are whole: reasonvec stats {tmp_path / 'runs' / 'other'}")
    assert load_run(tmp_path / "runs" / "other").complete
    assert load_run(tmp_path / "runs" / "mine").complete


def test_a_run_goes_on_from_another_directory(target, problems, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    measure(target, ["mine.jsonl"], "run")
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    assert document["benchmark"]["task"] == "mine.jsonl"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    measure(target, ["../mine.jsonl"], tmp_path / "run", resume=True)


@pytest.mark.parametrize("out", ["s3://bucket/run", "file.txt/run", "link"])
def test_a_place_that_cannot_be_written_is_refused_before_the_weights(target, problems, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    monkeypatch.setattr(measuring.harness, "load", lambda *_, **__: pytest.fail("the weights were loaded first"))
    with pytest.raises((OutputError, UsageError), match=r"is an address in a store|is no directory|exists already"):
        measure(target, [problems], out)
    assert not (tmp_path / "s3:").exists()


def test_a_file_whose_name_is_all_dots_gives_no_directory(target, problems, tmp_path):
    (tmp_path / "...jsonl").write_text(problems.read_text())
    with pytest.raises(UsageError, match="gives no name for a directory"):
        measure(target, [problems, tmp_path / "...jsonl"], tmp_path / "runs")


def test_ctrl_c_is_one_message_and_the_run_goes_on_to_the_same_bytes(target, problems, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    code = (
        "import sys, time\n"
        "from reasonvec.evaluation.engines import harness\n"
        "generate, calls = harness.HarnessEngine.generate, []\n"
        "def slow(*a, **k):\n"
        "    calls.append(1)\n"
        "    time.sleep(60 * (len(calls) > 2))\n"  # which Ctrl-C ends
        "    return generate(*a, **k)\n"
        "harness.HarnessEngine.generate = slow\n"
        "from reasonvec.cli import main\nmain(sys.argv[1:])\n"
    )
    arguments = ["evaluate", str(target), "--task", str(problems), "--split", "all", "--max-new-tokens", "6",
                 "--batch-size", "1", "--out"]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", code, *arguments, str(cut)], stderr=subprocess.PIPE, text=True,
                               env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    while not (cut / "outcomes.jsonl").exists() or lines(cut).count(b"\n") < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in told
    assert "--resume" in told
    assert lines(cut).count(b"\n") == 2
    assert not load_run(cut).complete
    for out, more in ((cut, ["--resume"]), (whole, [])):
        done = CliRunner().invoke(main, [*arguments, str(out), *more])
        assert done.exit_code == 0, done.output
    assert lines(cut) == lines(whole)


def test_changed_problems_of_ones_own_are_held_against_the_same_ones_unchanged(target, problems, tmp_path):
    changed = tmp_path / "changed.jsonl"
    made = CliRunner().invoke(main, ["perturb", str(problems), "--operator", "surface", "--severity", "1", "--seed",
                                     "0", "--out", str(changed)])  # fmt: skip
    assert made.exit_code == 0, made.output
    for prompt in ("plain", "think"):
        measure(target, [problems, changed], tmp_path / "runs" / prompt, prompt=prompt)
    (row,) = compare_runs([tmp_path / "runs"]).robustness
    assert [setting.task for setting in row.changed] == ["mine.jsonl"]
    assert row.n == len(changed.read_text().splitlines()) - 1
