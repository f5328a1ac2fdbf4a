"""The vLLM engine against a stand-in that transformers drives. vLLM itself needs a GPU: `make gpu` is the place."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from reasonvec.evaluation import measuring
from reasonvec.evaluation.engines.interface import Sampling
from reasonvec.evaluation.runs import load_run
from reasonvec.weights import extract
from tests.evaluation.measuring.models import checkpoint

FAKE = Path(__file__).parent / "fake_vllm"


def evaluate(*arguments):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(FAKE), *sys.path])}
    return subprocess.run(
        [sys.executable, "-m", "reasonvec", "evaluate", *map(str, arguments), "--engine", "vllm", "--split", "all"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def tiny_in_bfloat16(out, step):
    """A checkpoint in bfloat16 whose weights are all `step` units in the last place further from zero."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint(out), dtype=torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.view(torch.int16).add_(step)
    model.save_pretrained(out)
    return out


def same_answers(one, other):
    keep = ("id", "completion", "tokens", "finished", "correct", "extracted", "prompt_sha256")
    return [[{key: getattr(outcome, key) for key in keep} for outcome in load_run(run).outcomes]
            for run in (one, other)]  # fmt: skip


def test_the_same_answers_as_with_transformers(target, problems, tmp_path):
    done = evaluate(target, "--task", problems, "--max-new-tokens", 7, "--out", tmp_path / "vllm")
    assert done.returncode == 0, done.stderr
    measuring.evaluate(target, tasks=[str(problems)], out=tmp_path / "own", part="all",
                       sampling=Sampling(max_new_tokens=7))  # fmt: skip
    ours, theirs = same_answers(tmp_path / "own", tmp_path / "vllm")
    assert ours == theirs
    engine = load_run(tmp_path / "vllm").configuration["engine"]
    assert (engine["name"], engine["versions"]["vllm"]) == ("vllm", "0.30.0")


def test_a_vector_is_written_beside_the_runs_for_as_long_as_they_last(target, problems, tmp_path):
    extract(tuned=checkpoint(tmp_path / "tuned", seed=1), base=target, out=tmp_path / "vector")
    vector = {"vector": tmp_path / "vector", "alpha": 0.5}
    done = evaluate(target, "--vector", vector["vector"], "--alpha", 0.5, "--task", problems, "--max-new-tokens", 7,
                    "--out", tmp_path / "runs" / "vllm")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["vllm"]
    measuring.evaluate(target, tasks=[str(problems)], out=tmp_path / "own", part="all", **vector,
                       sampling=Sampling(max_new_tokens=7))  # fmt: skip
    ours, theirs = same_answers(tmp_path / "own", tmp_path / "runs" / "vllm")
    assert ours == theirs
    arms = [load_run(run).configuration["arm"] for run in (tmp_path / "own", tmp_path / "runs" / "vllm")]
    assert arms[0] == arms[1]
    assert arms[1]["realised_alpha"] is not None


def test_what_rounding_let_through_is_told_of_a_vector_that_was_written_too(problems, tmp_path):
    """In bfloat16 a hundredth of steps of one unit in the last place is rounded away."""
    donors = [tiny_in_bfloat16(tmp_path / name, step) for name, step in (("base", 0), ("tuned", 1))]
    extract(tuned=donors[1], base=donors[0], out=tmp_path / "vector")
    done = evaluate(donors[0], "--vector", tmp_path / "vector", "--alpha", 0.01, "--task", problems,
                    "--max-new-tokens", 2, "--out", tmp_path / "run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Rounding to the target's dtype changed alpha" in done.stderr
    assert load_run(tmp_path / "run").configuration["arm"]["realised_alpha"] < 0.5


def test_the_same_log_likelihoods(target, tmp_path):
    file = tmp_path / "choices.jsonl"
    rows = [{"question": f"Which {n}?", "answer": "this one", "kind": "choice",
             "details": {"distractors": ["no", "it"]}}
            for n in range(3)]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = evaluate(target, "--task", file, "--out", tmp_path / "vllm")
    assert done.returncode == 0, done.stderr
    measuring.evaluate(target, tasks=[str(file)], out=tmp_path / "own", part="all")
    for ours, theirs in zip(load_run(tmp_path / "own").outcomes, load_run(tmp_path / "vllm").outcomes, strict=True):
        assert max(abs(a - b) for a, b in zip(ours.logliks, theirs.logliks, strict=True)) < 1e-3
