"""Arms with a vector, and programs: through the command, as its user does."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from reasonvec.cli import main
from reasonvec.errors import UsageError
from reasonvec.evaluation import measuring
from reasonvec.evaluation.engines.interface import Generated, Sampling
from reasonvec.evaluation.runs import load_run
from reasonvec.weights import apply
from tests.evaluation.measuring.models import Scripted

SHORT = Sampling(max_new_tokens=6)


def command(*arguments):
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def answers(run):
    return [(o.id, o.completion, o.tokens, o.finished, o.prompt_sha256) for o in load_run(run).outcomes]


def test_an_attached_vector_answers_as_the_enhanced_checkpoint_does(target, vector, problems, tmp_path):
    apply(vectors=[(vector, 0.5)], target=target, out=tmp_path / "enhanced")
    common = ["--task", problems, "--split", "all", "--max-new-tokens", 6]
    assert command(target, "--vector", vector, "--alpha", 0.5, *common, "--out", tmp_path / "live").exit_code == 0
    assert command(tmp_path / "enhanced", *common, "--out", tmp_path / "disk").exit_code == 0
    assert command(target, *common, "--out", tmp_path / "alone").exit_code == 0
    assert answers(tmp_path / "live") == answers(tmp_path / "disk") != answers(tmp_path / "alone")
    live, disk = (load_run(tmp_path / name).configuration["arm"] for name in ("live", "disk"))
    assert live["vector_fingerprint"] == disk["vector_fingerprint"]
    assert (live["alpha"], disk["alpha"]) == (0.5, 0.5)
    assert (live["attached"], disk["attached"]) == (True, False)
    assert live["realised_alpha"] == pytest.approx(0.5 / 0.5, abs=1e-3)


def test_a_sweep_loads_the_model_once_and_measures_each_arm_as_if_alone(
    target, vector, problems, tmp_path, monkeypatch
):
    from reasonvec.evaluation.engines import harness

    loads, load = [], harness.load
    monkeypatch.setattr(harness, "load", lambda path, **how: (loads.append(path), load(path, **how))[1])
    common = ["--vector", vector, "--task", problems, "--split", "all", "--max-new-tokens", 6]
    swept = [*common, "--alpha", 0.5, "--alpha", 1, "--alpha", -1, "--out", tmp_path / "sweep" / "{alpha}"]
    done = command(target, *swept)
    assert done.exit_code == 0, done.output
    assert len(loads) == 1
    for alpha in ("0.5", "1", "-1"):
        assert command(target, *common, "--alpha", alpha, "--out", tmp_path / "alone" / alpha).exit_code == 0
        for file in ("run.json", "outcomes.jsonl", "summary.json"):
            assert (tmp_path / "sweep" / alpha / file).read_bytes() == (tmp_path / "alone" / alpha / file).read_bytes()
    assert command(target, *swept, "--resume").exit_code == 0


@pytest.mark.parametrize(
    ("alphas", "out", "complaint"),
    [((0.5, 1), "run", "2 alphas need a directory each, and --out .*run has no {alpha} in it"),
     ((1, 1.0), "run-{alpha}", "two of them are equal"),
     ((0.12345678, 0.12345679), "run-{alpha}", "two of them are equal to six digits"),
     (None, "run-{alpha}", "has {alpha} in it, and no --alpha is named")],
)  # fmt: skip
def test_alphas_that_would_share_a_directory_are_refused(target, vector, problems, tmp_path, alphas, out, complaint):
    with pytest.raises(UsageError, match=complaint):
        measuring.evaluate(target, tasks=[str(problems)], vector=vector, alpha=alphas, out=tmp_path / out)


def test_many_completions_that_were_cut_off_are_told(target, problems, tmp_path):
    done = command(target, "--task", problems, "--split", "all", "--max-new-tokens", 2, "--out", tmp_path / "run")
    assert "100% of the completions" in done.output.replace("\n", " ")
    assert "were cut off at --max-new-tokens 2" in done.output.replace("\n", " ")


def test_a_control_is_known_as_one(target, vector, problems, tmp_path):
    made = CliRunner().invoke(main, ["control", str(vector), "--kind", "random", "--seed", "3", "--out",
                                     str(tmp_path / "random")])  # fmt: skip
    assert made.output.startswith(f"{tmp_path / 'random'}\nNext: reasonvec evaluate TARGET --vector")
    common = ["--task", problems, "--split", "all", "--max-new-tokens", 4]
    assert command(target, "--vector", tmp_path / "random", *common, "--out", tmp_path / "run").exit_code == 0
    assert load_run(tmp_path / "run").configuration["arm"]["control"] == "random"


def test_a_vector_that_does_not_fit_is_one_message_before_the_weights(vector, problems, tmp_path, monkeypatch):
    from reasonvec.evaluation.engines import harness
    from reasonvec.lab.models import build_model
    from reasonvec.lab.recipe import ModelShape
    from reasonvec.lab.world import world_tokenizer
    from reasonvec.training.checkpoints import save_checkpoint

    shape = ModelShape(hidden=24, intermediate=32, layers=2, heads=2, key_value_heads=1, initializer_range=0.3)
    save_checkpoint(build_model(shape, world_tokenizer(), seed=0), world_tokenizer(), out=tmp_path / "other")
    monkeypatch.setattr(harness, "load", lambda *_, **__: pytest.fail("the weights were loaded first"))
    done = command(
        tmp_path / "other", "--vector", vector, "--task", problems, "--split", "all", "--out", tmp_path / "r"
    )
    assert done.exit_code == 3
    assert "does not fit" in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "r").exists()


PROGRAMS = (
    ("double", "x", "Twice x.", "2 * x", "assert candidate(4) == 8"),
    ("last", "items", "The last one.", "items[-1]", "assert candidate([1, 2]) == 2"),
    ("shout", "text", "In capitals.", "text.upper()", "assert candidate('a') == 'A'"),
)


@pytest.fixture
def programs(tmp_path):
    file = tmp_path / "programs.jsonl"
    rows = [
        {"id": f"p/{name}", "question": f'def {name}({argument}):\n    """{does}"""\n',
         "answer": f"    return {value}\n", "kind": "program",
         "details": {"entry_point": name, "test": f"def check(candidate):\n    {test}\n"}}
        for name, argument, does, value, test in PROGRAMS
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_programs_are_run_in_the_sandbox_and_graded(target, programs, tmp_path, monkeypatch):
    from contextlib import nullcontext

    def answer(prompt, sample):
        if "def double" in prompt:
            return Generated("Here it is:\n```python\ndef double(x):\n    return x + x\n```", 20, True)
        if "def last" in prompt:
            return Generated("```python\ndef last(items):\n    return items[0]\n```", 20, True)
        return Generated("I would rather not.", 5, True)

    monkeypatch.setattr(measuring, "_opened", lambda *_, **__: nullcontext((Scripted(answer), None)))
    found = measuring.evaluate(target, tasks=[str(programs)], out=tmp_path / "run", part="all", sampling=SHORT)
    outcomes = {outcome.id: outcome for outcome in load_run(tmp_path / "run").outcomes}
    assert {name: outcome.correct for name, outcome in outcomes.items()} == {
        "p/double": True, "p/last": False, "p/shout": False,
    }  # fmt: skip
    assert outcomes["p/last"].how == "wrong answer"
    assert outcomes["p/shout"].extracted is None
    assert found[0].summary.answered == pytest.approx(2 / 3)
    sandbox = load_run(tmp_path / "run").configuration["sandbox"]
    assert sandbox["accepted_without"] is False


def test_a_sandbox_that_cannot_hold_is_refused_before_the_weights(target, programs, tmp_path, monkeypatch):
    from reasonvec.errors import SandboxError
    from reasonvec.evaluation.engines import harness

    def refuse(report, *, accept_unsandboxed):
        raise SandboxError("no network is missing")

    monkeypatch.setattr(measuring, "require", refuse)
    monkeypatch.setattr(harness, "load", lambda *_, **__: pytest.fail("the weights were loaded first"))
    with pytest.raises(SandboxError, match="no network is missing"):
        measuring.evaluate(target, tasks=[str(programs)], out=tmp_path / "run", part="all", sampling=SHORT)


def test_what_was_accepted_of_a_sandbox_is_recorded(target, programs, tmp_path, monkeypatch):
    from contextlib import nullcontext

    told = []
    monkeypatch.setattr(measuring, "require", lambda report, *, accept_unsandboxed: told.append(accept_unsandboxed))
    answer = Scripted(lambda prompt, sample: Generated("I would rather not.", 5, True))
    monkeypatch.setattr(measuring, "_opened", lambda *_, **__: nullcontext((answer, None)))
    measuring.evaluate(target, tasks=[str(programs)], out=tmp_path / "run", part="all", accept_unsandboxed=True)
    assert told == [True]
    assert load_run(tmp_path / "run").configuration["sandbox"]["accepted_without"] is True


def test_stdout_is_one_document_and_stderr_the_rest(target, problems, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "reasonvec", "evaluate", target, "--task", problems, "--split", "all", "--json",
         "--max-new-tokens", "4", "--out", tmp_path / "run"],
        capture_output=True, text=True, check=False, cwd=tmp_path,  # where git would say so, were it asked
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (document,) = json.loads(done.stdout)
    assert document["summary"]["problems"] == 7
    (line,) = done.stderr.splitlines()  # the model is an untrained one, which never ends
    assert line.startswith("warning: 100% of the completions")


def test_the_command_names_the_extra_of_vllm_and_not_its_own(target, problems, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "find_spec", lambda name: None)
    done = command(target, "--task", problems, "--engine", "vllm", "--out", tmp_path / "run")
    assert done.exit_code == 1
    assert 'pip install "reasonvec[vllm]"' in done.stderr and "[eval]" not in done.stderr


def test_the_table_of_changed_problems_says_to_how_many_the_operator_applies(target, problems, tmp_path):
    changed = tmp_path / "changed.jsonl"
    made = CliRunner().invoke(main, ["perturb", str(problems), "--operator", "distract-in", "--out", str(changed)])
    assert "1 of 7 problems (14.3%)" in made.stdout, made.output
    common = ["--task", changed, "--split", "all", "--max-new-tokens", 4]
    done = command(target, *common, "--out", tmp_path / "run")
    assert "1; the operator applies to 1 of 7 (14.3%)" in done.stdout, done.output
    told = json.loads(command(target, *common, "--out", tmp_path / "again", "--json").stdout)
    assert told[0]["applies_to"] == 1 / 7
    compared = CliRunner().invoke(main, ["stats", str(tmp_path / "run")], env={"COLUMNS": "200"})
    assert "1 problems; the operator applies to 1 of 7 (14.3%)" in " ".join(compared.stdout.split()), compared.output


def test_a_table_for_people(target, problems, tmp_path):
    done = command(target, "--task", problems, "--split", "all", "--max-new-tokens", 4, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    for words in ("problems", "95 % interval", "answered", "cut off", "strict match", "Next: reasonvec stats"):
        assert words in done.output


@pytest.mark.parametrize("size", ["0", "-1", "many", "1.5"])
def test_a_batch_size_that_is_none_is_wrong_usage(target, problems, tmp_path, size):
    done = command(target, "--task", problems, "--batch-size", size, "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "neither auto nor a number" in done.output
