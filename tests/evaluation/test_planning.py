"""The plan of a run: the words that reach the model, where answers end, the room they need, and what is recorded."""

import hashlib
import json

import pytest

from reasonvec.evaluation import planning
from reasonvec.evaluation.benchmarks import Benchmark, BenchmarkProblem
from reasonvec.evaluation.engines.interface import Sampling
from reasonvec.evaluation.prompts import prompt_style
from reasonvec.lab.world import world_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return world_tokenizer()


def plan(task, tmp_path, tokenizer, *, prompt="plain", bare=False, part="all", **sampling):
    return planning.plan_run(
        str(task), data=tmp_path, style=prompt_style(prompt, bare=bare), sampling=Sampling(**sampling), part=part,
        limit=None, tokenizer=tokenizer,
    )  # fmt: skip


def write(tmp_path, *rows, name="mine"):
    file = tmp_path / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def hard(monkeypatch):
    """Two tasks in the layout of BIG-Bench Hard, each with worked examples of its own."""
    problems = tuple(BenchmarkProblem(f"bbh/{task}/{n}", f"bbh/{task}", f"{task} {n}?", "Yes", "text")
                     for task in ("one", "two") for n in range(2))  # fmt: skip
    prompts = {f"bbh/{task}": f"Q: about {task}?\nA: So the answer is Yes." for task in ("one", "two")}
    monkeypatch.setattr(planning, "load_benchmark", lambda task, data: Benchmark("bbh", problems, {}, (), prompts))


def prompts(found):
    return {item.problem.id: item.prompt for item in found.items}


@pytest.mark.parametrize("bare", [True, False])
def test_worked_examples_are_those_of_the_problems_own_task(hard, tmp_path, tokenizer, bare):
    for id, text in prompts(plan("bbh", tmp_path, tokenizer, bare=bare)).items():
        task = id.split("/")[1]
        assert text.count(f"Q: about {task}?\nA: So the answer is Yes.\n\nQ: {task} ") == 1
        assert text.count("Q: about ") == 1


def test_zero_shot_shows_no_worked_examples(hard, tmp_path, tokenizer):
    assert not any("about" in text for text in prompts(plan("bbh:zero-shot", tmp_path, tokenizer)).values())


def test_nothing_stops_a_chat_answer_and_the_next_question_stops_a_continuation(hard, tmp_path, tokenizer):
    assert plan("bbh", tmp_path, tokenizer).stop == ()
    assert plan("bbh:zero-shot", tmp_path, tokenizer, bare=True).stop == ()
    found = plan("bbh", tmp_path, tokenizer, bare=True)
    assert found.stop == ("\nQ:",)
    assert found.configuration()["prompt"]["stop"] == ["\nQ:"]


def test_problems_of_ones_own_have_no_stop_strings_at_all(tmp_path, tokenizer):
    file = write(tmp_path, {"question": "What is 2 + 2?", "answer": "4"})
    for bare in (True, False):
        assert plan(file, tmp_path, tokenizer, bare=bare).stop == ()


def test_there_is_room_for_the_longest_prompt_with_its_answer(tmp_path, tokenizer):
    file = write(tmp_path, {"question": "one two", "answer": "4"}, {"question": "one two three four", "answer": "4"})
    found = plan(file, tmp_path, tokenizer, max_new_tokens=7)
    longest = max(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in prompts(found).values())
    assert found.longest == longest + 7
    assert [item.problem.question for item in found.items] == ["one two three four", "one two"]


def test_there_is_room_for_the_longest_option(tmp_path, tokenizer):
    long = "a very long option " * 20
    file = write(tmp_path, {"question": "Which?", "answer": "x", "kind": "choice", "details": {"distractors": [long]}})
    found = plan(file, tmp_path, tokenizer)
    (item,) = found.items
    whole = len(tokenizer(f"{item.prompt} {long.strip()}")["input_ids"])
    assert found.longest >= whole


def test_tokens_that_the_tokenizer_adds_count_where_it_adds_them(tmp_path):
    from tokenizers.processors import TemplateProcessing

    tokenizer = world_tokenizer()
    start, number = next((token, id) for token, id in tokenizer.get_vocab().items() if token.startswith("<|"))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start} {start} $A", special_tokens=[(start, number)]
    )
    file = write(tmp_path, {"question": "What is 2 + 2?", "answer": "4"})
    (bare,) = plan(file, tmp_path, tokenizer, bare=True).items
    assert bare.tokens == len(tokenizer(bare.prompt, add_special_tokens=False)["input_ids"]) + 2
    (chat,) = plan(file, tmp_path, tokenizer).items
    assert chat.tokens == len(tokenizer(chat.prompt, add_special_tokens=False)["input_ids"])


def test_options_are_ordered_by_the_runs_seed(tmp_path, tokenizer):
    details = {"distractors": ["b", "c", "d", "e"]}
    file = write(tmp_path, {"question": "Which?", "answer": "a", "kind": "choice", "details": details})
    found = {plan(f"{file}:written", tmp_path, tokenizer, seed=seed).items[0].prompt for seed in range(8)}
    assert len(found) > 4


def test_the_digest_is_of_the_text_that_the_model_is_given(tmp_path, tokenizer):
    file = write(tmp_path, {"question": "What is 2 + 2?", "answer": "4"})
    for prompt in ("plain", "think"):
        (item,) = plan(file, tmp_path, tokenizer, prompt=prompt).items
        assert item.prompt_sha256 == hashlib.sha256(item.prompt.encode()).hexdigest()


def test_a_changed_file_is_recorded_with_its_header_and_gold_changes_the_digest(tmp_path, tokenizer):
    header = {"format": "reasonvec perturbed problems", "operator": "typo", "severity": 1, "seed": 3,
              "benchmark": {"task": "mine"}}  # fmt: skip
    digests = []
    for gold in ("4", "5"):
        file = write(tmp_path, header, {"id": "m", "question": "What is 2 + 2?", "answer": gold}, name=f"gold{gold}")
        benchmark = plan(file, tmp_path, tokenizer).configuration()["benchmark"]
        assert benchmark["perturbation"] == header
        digests.append(benchmark["problems_sha256"])
    assert digests[0] != digests[1]


def test_the_source_of_problems_is_the_file_that_dev_comes_from(tmp_path, tokenizer, monkeypatch):
    """What is looked for in training data has to be what is measured: gsm8k's dev part is of its train file."""
    from reasonvec.evaluation import selection

    train = Benchmark("gsm8k/train", tuple(BenchmarkProblem(f"gsm8k/train/{n}", "gsm8k/train", f"{n}?", "4", "number")
                                           for n in range(1001)), {}, ())  # fmt: skip
    test = Benchmark("gsm8k", (BenchmarkProblem("gsm8k/test/0", "gsm8k", "0?", "4", "number"),), {}, ())
    files = {"gsm8k": test, "gsm8k/train": train}
    for module in (planning, selection):
        monkeypatch.setattr(module, "load_benchmark", lambda task, data: files[task])
    dev = plan("gsm8k", tmp_path, tokenizer, part="dev")
    assert (dev.task, dev.source, len(dev.items)) == ("gsm8k", "gsm8k/train", 1000)
    assert plan("gsm8k", tmp_path, tokenizer, part="test").source == "gsm8k"
