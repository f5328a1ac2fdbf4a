"""What may be asked of an arm, what is refused before a weight is loaded, and what runs record beside outcomes."""

import json

import pytest

from reasonvec.errors import (
    BenchmarkError,
    CheckpointError,
    MissingExtraError,
    UsageError,
)
from reasonvec.evaluation import measuring
from reasonvec.evaluation.engines import harness
from reasonvec.evaluation.engines.interface import Sampling
from reasonvec.evaluation.hush import hushed
from reasonvec.evaluation.runs import load_run
from tests.evaluation.measuring.models import Scripted, but_length, checkpoint, says

SHORT = Sampling(max_new_tokens=4)


@pytest.fixture(autouse=True)
def no_weights_are_loaded_for_what_is_refused(request, monkeypatch):
    if "refused" in request.node.name:
        monkeypatch.setattr(harness, "load", lambda *_, **__: pytest.fail("the weights were loaded first"))


def measure(target, task, out, *, sampling=SHORT, part="all", **more):
    return measuring.evaluate(target, tasks=[str(task)], out=out, sampling=sampling, part=part, **more)[0]


def scripted(monkeypatch, engine):
    from contextlib import nullcontext

    monkeypatch.setattr(measuring, "_opened", lambda *_, **__: nullcontext((engine, None)))
    return engine


@pytest.fixture
def choices(tmp_path):
    file = tmp_path / "choices.jsonl"
    rows = [
        {"id": f"c{n}", "question": f"Which {n}?", "answer": "yes" * (n + 1), "kind": "choice",
         "details": {"distractors": ["no", "perhaps", "never"], "support": f"It is {n}."}}
        for n in range(5)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_the_likeliest_option_is_the_answer(target, choices, tmp_path, monkeypatch):
    scripted(monkeypatch, Scripted(says("")))  # of whose options the shortest is the likeliest
    measure(target, choices, tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert {outcome.extracted for outcome in run.outcomes} == {"no"}
    assert not any(outcome.correct for outcome in run.outcomes)
    for outcome in run.outcomes:
        gold = 3 * (int(outcome.id[1:]) + 1)  # letters
        assert outcome.logliks == (-3.0, -8.0, -6.0, -gold - 1.0)
        assert outcome.normalised == (gold > 7)  # per byte, -(n + 1) / n, the longest is the likeliest
    assert run.configuration["prompt"]["name"] == "log-likelihood"


def test_log_likelihoods_of_a_model_agree_with_the_harness_task(target, choices, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    measure(target, choices, tmp_path / "run")
    rows = [json.loads(line) for line in choices.read_text().splitlines()]
    flat = [{"q": row["question"], "a": row["answer"], **row["details"]} for row in rows]
    task = {
        "task": "theirs", "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(flat)},
        "test_split": "test",
        "output_type": "multiple_choice", "doc_to_text": "{{support.lstrip()}}\nQuestion: {{q}}\nAnswer:",
        "doc_to_choice": "{{distractors + [a]}}", "doc_to_target": 3,
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }  # fmt: skip
    with hushed():
        model, tokenizer = harness.load(target)
        results = simple_evaluate(
            HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4), tasks=[task], bootstrap_iters=0,
            task_manager=TaskManager(include_defaults=False), log_samples=True,
        )  # fmt: skip
    theirs = {sample["doc"]["q"]: sample for sample in results["samples"]["theirs"]}
    for outcome in load_run(tmp_path / "run").outcomes:
        sample = theirs[f"Which {outcome.id[1:]}?"]
        assert outcome.logliks == pytest.approx([float(each[0][0]) for each in sample["resps"]], abs=1e-3)
        assert (outcome.correct, outcome.normalised) == (sample["acc"] == 1.0, sample["acc_norm"] == 1.0)


def test_a_written_choice_is_answered_by_letter(target, choices, tmp_path, monkeypatch):
    engine = scripted(monkeypatch, Scripted(says("I choose. So the answer is B.")))
    measure(target, f"{choices}:written", tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert any("It is 3." in prompt for prompts in engine.asked for prompt in prompts)
    assert {outcome.how for outcome in run.outcomes} != {None}
    assert 0 < sum(outcome.correct for outcome in run.outcomes) < 5


@pytest.mark.parametrize("more", [{"prompt": "think"}, {"placement": "system"}])
def test_thinking_where_nothing_is_written_is_refused(target, choices, tmp_path, more):
    with pytest.raises(UsageError, match="the model writes nothing, so no prompt can make it think.*:written"):
        measure(target, choices, tmp_path / "run", **more)


def test_samples_of_log_likelihoods_are_refused(target, choices, tmp_path):
    with pytest.raises(UsageError, match="nothing is drawn"):
        measure(target, choices, tmp_path / "run", sampling=Sampling(samples=2, temperature=1.0))


@pytest.mark.parametrize(
    ("sampling", "complaint"),
    [
        (Sampling(samples=4), "one completion 4 times, and an interval that is too narrow. Set --temperature"),
        (Sampling(samples=0), "--samples 0 and --max-new-tokens 1024 have to be 1 or more"),
        (Sampling(max_new_tokens=0), "have to be 1 or more"),
        (Sampling(temperature=-1.0), "--temperature -1.0 is not in 0 to 10"),
        (Sampling(temperature=float("nan")), "--temperature nan is not in 0 to 10"),
    ],
)
def test_sampling_that_contradicts_itself_is_refused(target, problems, tmp_path, sampling, complaint):
    with pytest.raises(UsageError, match=complaint):
        measure(target, problems, tmp_path / "run", sampling=sampling)


def test_a_prompt_that_does_not_fit_the_context_is_refused(problems, tmp_path):
    small = checkpoint(tmp_path / "small")
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 60}))
    with pytest.raises(UsageError) as error:
        measure(small, problems, tmp_path / "run", sampling=Sampling(max_new_tokens=30))
    message = str(error.value)
    assert "reads 60 tokens at a time" in message
    assert "of 7 prompts, the longest mine/5 with" in message
    assert "and 30 for the answer" in message
    assert not (tmp_path / "run").exists()


def test_an_alpha_without_a_vector_is_refused(target, problems, tmp_path):
    with pytest.raises(UsageError, match=r"--alpha 0.5 has nothing to scale"):
        measure(target, problems, tmp_path / "run", alpha=0.5)


@pytest.mark.parametrize("task", ["{own}:written", "{own}:zero-shot"])
def test_a_variant_that_a_task_lacks_is_refused(target, problems, tmp_path, task):
    with pytest.raises(UsageError, match="has no variant '.*'. It has none."):
        measure(target, task.format(own=problems), tmp_path / "run")


def test_an_unknown_task_is_refused_with_the_nearest_names(target, tmp_path):
    with pytest.raises(UsageError, match="Did you mean gsm8k"):
        measure(target, "gsm8", tmp_path / "run", data=tmp_path)


def test_missing_data_is_refused_with_its_source(target, tmp_path):
    with pytest.raises(BenchmarkError, match=r"gsm8k needs 1 file, of which 1 is missing.*licence: MIT"):
        measure(target, "gsm8k", tmp_path / "run", data=tmp_path)


def test_a_missing_checkpoint_is_refused(problems, tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        measure(tmp_path / "nowhere", problems, tmp_path / "run")


def test_a_pickle_is_refused(problems, tmp_path):
    pickled = checkpoint(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickle"):
        measure(pickled, problems, tmp_path / "run")


def test_a_lost_chat_template_is_refused_and_bare_does_without(problems, tmp_path):
    base = checkpoint(tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match="has no chat template.*--bare"):
        measure(base, problems, tmp_path / "run")


def test_bare_measures_a_base_model(problems, tmp_path):
    base = checkpoint(tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    measure(base, problems, tmp_path / "run", bare=True)
    assert load_run(tmp_path / "run").configuration["prompt"]["chat_template"] is False


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_checkpoint_without_a_configuration_is_refused(problems, tmp_path, content):
    half = checkpoint(tmp_path / "half")
    (half / "config.json").unlink()
    if content:
        (half / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"half has no config\.json, or an empty one, so there is no telling"):
        measure(half, problems, tmp_path / "run")


def test_vllm_that_is_not_installed_is_refused(target, problems, tmp_path):
    with pytest.raises(MissingExtraError, match=r'pip install "reasonvec\[vllm\]"'):
        measure(target, problems, tmp_path / "run", engine="vllm")


def test_declared_training_data_that_overlaps_is_recorded_and_told(problems, tmp_path):
    donor = checkpoint(tmp_path / "donor")
    rows = problems.read_text().splitlines()
    training = tmp_path / "training.jsonl"
    training.write_text("\n".join([rows[0], rows[2], json.dumps({"question": "Something else"})]))
    (donor / "training.json").write_text(json.dumps({"training_data": [{"file": str(training)}]}))
    found = measure(donor, problems, tmp_path / "run")
    record = load_run(tmp_path / "run").configuration["contamination"]
    assert record["overlapping"] == 2
    assert record["ids"] == ["mine/0", "mine/2"]
    assert [each["rows"] for each in record["training_data"]] == [3]
    (told,) = but_length(found.warnings)
    assert f"2 of the 7 problems of {problems} overlap the training data ({training}): 2 of them whole. A" in told


def test_training_data_may_be_named_and_clean(target, problems, tmp_path):
    training = tmp_path / "training.jsonl"
    training.write_text(json.dumps({"text": "Nothing of the kind stands here."}))
    found = measure(target, problems, tmp_path / "run", training_data=[training])
    assert load_run(tmp_path / "run").configuration["contamination"]["overlapping"] == 0
    assert but_length(found.warnings) == []


def test_a_declaration_that_cannot_be_read_is_refused(problems, tmp_path):
    donor = checkpoint(tmp_path / "donor")
    (donor / "training.json").write_text("{")
    with pytest.raises(BenchmarkError, match="declares what a donor was trained on and cannot be read"):
        measure(donor, problems, tmp_path / "run")


def test_two_tasks_of_one_name_are_refused(target, problems, tmp_path):
    other = tmp_path / "there"
    other.mkdir()
    (other / "mine.jsonl").write_text(problems.read_text())
    with pytest.raises(UsageError, match="of which two would be written to one directory"):
        measuring.evaluate(target, tasks=[str(problems), str(other / "mine.jsonl")], out=tmp_path / "runs")


def test_a_distractor_with_the_right_words_counts_as_the_harness_counts_it(target, tmp_path, monkeypatch):
    file = tmp_path / "twice.jsonl"
    row = {"id": "c", "question": "Q?", "answer": "a", "kind": "choice", "details": {"distractors": ["bbb", "a", "cc"]}}
    file.write_text(json.dumps(row))
    scripted(monkeypatch, Scripted(says("")))  # of whose options the shortest, and of equal ones the first, is taken
    measure(target, file, tmp_path / "run")
    (outcome,) = load_run(tmp_path / "run").outcomes
    assert outcome.extracted == "a"
    assert not outcome.correct


def test_log_likelihoods_that_are_no_numbers_are_one_message(target, choices, tmp_path, monkeypatch):
    engine = scripted(monkeypatch, Scripted(says("")))
    monkeypatch.setattr(engine, "log_likelihoods", lambda pairs: [float("nan")] * len(pairs))
    with pytest.raises(CheckpointError, match="the log-likelihoods of the options of c. are nan, nan, nan, nan: such"):
        measure(target, choices, tmp_path / "run")


def test_per_byte_is_per_byte_and_not_per_letter(target, tmp_path, monkeypatch):
    file = tmp_path / "bytes.jsonl"
    row = {"question": "Q?", "answer": "éééé", "kind": "choice", "details": {"distractors": ["abcdef"]}}
    file.write_text(json.dumps(row))
    engine = scripted(monkeypatch, Scripted(says("")))
    monkeypatch.setattr(engine, "log_likelihoods", lambda pairs: [-7.0, -5.0])
    measure(target, file, tmp_path / "run")
    (outcome,) = load_run(tmp_path / "run").outcomes
    assert outcome.correct
    assert outcome.normalised  # -5/8 is above -7/6; of letters -5/4 would be below


def test_a_task_is_measured_beside_longer_ones_as_it_is_alone(target, problems, tmp_path):
    other = tmp_path / "short.jsonl"
    other.write_text(json.dumps({"question": "add 1.", "answer": "2"}))
    measuring.evaluate(target, tasks=[str(problems), str(other)], out=tmp_path / "both", part="all", sampling=SHORT)
    for task, name in ((problems, "mine"), (other, "short")):
        measure(target, task, tmp_path / name)
        alone, beside = ((tmp_path / run / "outcomes.jsonl").read_bytes() for run in (name, f"both/{name}"))
        assert alone == beside


def test_the_harness_two_metrics_stand_beside_ours(target, problems, tmp_path, monkeypatch):
    answers = {"Tom has 12": "The answer is 17 eggs. Step 2.", "12, add 5": "#### 9"}
    scripted(monkeypatch, Scripted(
        lambda prompt, n: says(next((text for words, text in answers.items() if words in prompt), "no idea"))(prompt, n)
    ))  # fmt: skip
    measure(target, problems, tmp_path / "run")
    found = {each.id: (each.correct, each.extracted, each.strict, each.flexible)
             for each in load_run(tmp_path / "run").outcomes}  # fmt: skip
    assert found["mine/3"] == (True, "17", False, False)
    assert found["mine/0"] == (True, "9", True, True)
    assert found["mine/1"] == (False, None, False, False)


def test_only_the_problems_that_were_measured_are_counted_as_overlapping(target, problems, tmp_path):
    measure(target, problems, tmp_path / "run", limit=2, training_data=[problems])
    record = load_run(tmp_path / "run").configuration["contamination"]
    assert record["overlapping"] == 2
    assert set(record["ids"]) == set(load_run(tmp_path / "run").by_id)


def test_the_test_part_is_measured_unless_told_otherwise(target, problems, tmp_path):
    measuring.evaluate(target, tasks=[str(problems)], out=tmp_path / "run", sampling=SHORT)
    split = load_run(tmp_path / "run").configuration["benchmark"]["split"]
    assert (split["part"], split["dev"], split["test"]) == ("test", 1, 6)
