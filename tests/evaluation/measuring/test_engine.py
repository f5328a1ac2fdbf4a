"""The transformers engine against transformers itself and against the harness's own loop."""

import json
import random
import re

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from reasonvec.errors import CheckpointError
from reasonvec.evaluation.engines import harness
from reasonvec.evaluation.engines.interface import Sampling
from reasonvec.evaluation.hush import hushed
from tests.evaluation.measuring.models import QUESTIONS, checkpoint

PROMPTS = [f"<|user|> {question}<|assistant|>" for question in QUESTIONS]


@pytest.fixture(scope="module")
def engine(target):
    model, tokenizer = harness.load(target)
    return harness.HarnessEngine(model, tokenizer, batch_size=4, longest=400)


def ask(engine, prompts=PROMPTS[:4], *, sample=0, stop=(), **settings):
    return engine.generate(prompts, sampling=Sampling(**settings), sample=sample, stop=stop, chat=True)


def transformers_greedy(target, prompt, limit):
    """Token ids of one prompt alone, by transformers' own generate, up to and with the end token."""
    model = AutoModelForCausalLM.from_pretrained(target, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(target, local_files_only=True)
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
    row = model.generate(**ids, max_new_tokens=limit, do_sample=False)[0, ids["input_ids"].shape[1] :].tolist()
    return row, tokenizer


def test_greedy_completions_are_transformers_own_one_by_one(engine, target):
    answers = ask(engine, max_new_tokens=12)
    for prompt, answer in zip(PROMPTS[:4], answers, strict=True):
        row, tokenizer = transformers_greedy(target, prompt, 12)
        assert answer.text == tokenizer.decode(row, skip_special_tokens=True)
        assert answer.tokens == len(row)
        assert answer.finished == (row[-1] == tokenizer.eos_token_id)


def test_a_completion_is_not_cut_at_the_harness_limit_of_256(engine):
    answers = ask(engine, PROMPTS[:1], max_new_tokens=300)
    assert answers[0].tokens == 300
    assert not answers[0].finished


def test_the_order_of_prompts_does_not_matter(engine):
    there = ask(engine, PROMPTS[:4], max_new_tokens=8)
    back = ask(engine, PROMPTS[:4][::-1], max_new_tokens=8)
    assert there == back[::-1]


def test_a_drawn_completion_depends_on_seed_and_sample_alone(engine):
    drawn = ask(engine, max_new_tokens=8, temperature=1.0, seed=5)
    torch.rand(3)
    assert ask(engine, max_new_tokens=8, temperature=1.0, seed=5) == drawn
    assert ask(engine, max_new_tokens=8, temperature=1.0, seed=6) != drawn
    assert ask(engine, max_new_tokens=8, temperature=1.0, seed=5, sample=1) != drawn


def indifferent(target):
    """An engine to which all tokens are nearly, but not quite, alike, whatever came before."""
    model, tokenizer = harness.load(target)
    model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    ranked = torch.arange(len(model.lm_head.weight), dtype=torch.float32) * 1e-6
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits + ranked)
    return harness.HarnessEngine(model, tokenizer, batch_size=4, longest=400), model, ranked


def test_what_is_drawn_is_drawn_from_the_whole_distribution(target):
    engine, model, ranked = indifferent(target)
    drawn = []
    own = model.generate
    model.generate = lambda **more: (drawn.append(own(**more)), drawn[-1])[1]
    ask(engine, max_new_tokens=200, temperature=1.0)
    assert len(set(drawn[0].flatten().tolist())) > min(100, len(ranked) // 2)


def test_the_global_generators_are_left_alone(engine):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    ask(engine, max_new_tokens=4, temperature=1.0)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def test_a_stop_string_ends_a_completion_and_is_left_out(engine):
    whole = ask(engine, PROMPTS[:1], max_new_tokens=20)[0]
    stop = whole.text[len(whole.text) // 2 :][:4]
    cut = ask(engine, PROMPTS[:1], max_new_tokens=20, stop=[stop])[0]
    assert cut.finished
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.tokens < 20


def test_what_a_checkpoint_recommends_for_chatting_does_not_bend_greedy_decoding(target, tmp_path, engine):
    other = tmp_path / "other"
    checkpoint(other)
    settings = json.loads((other / "generation_config.json").read_text())
    settings |= {"repetition_penalty": 5.0, "do_sample": True, "temperature": 0.1, "top_k": 1}
    (other / "generation_config.json").write_text(json.dumps(settings))
    model, tokenizer = harness.load(other)
    bent = harness.HarnessEngine(model, tokenizer, batch_size=4, longest=400)
    assert ask(bent, max_new_tokens=12) == ask(engine, max_new_tokens=12)
    drawn = ask(engine, max_new_tokens=12, temperature=1.0)
    assert ask(bent, max_new_tokens=12, temperature=1.0) == drawn


def test_every_end_token_of_the_checkpoint_ends_a_completion(tmp_path, engine):
    first = ask(engine, PROMPTS[:1], max_new_tokens=6)[0]
    other = checkpoint(tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(other, local_files_only=True)
    row, _ = transformers_greedy(other, PROMPTS[0], 6)
    settings = json.loads((other / "generation_config.json").read_text())
    (other / "generation_config.json").write_text(
        json.dumps(settings | {"eos_token_id": [tokenizer.eos_token_id, row[2]]})
    )
    again = harness.HarnessEngine(*harness.load(other), batch_size=4, longest=400)
    ended = ask(again, PROMPTS[:1], max_new_tokens=6)[0]
    assert ended.finished
    assert ended.tokens == row.index(row[2]) + 1 < first.tokens


def test_log_likelihoods_are_the_sums_of_the_models_log_softmax(engine, target):
    pairs = [("Question: what is 2 + 2 ?\nAnswer:", " 4"), ("Tom has 12.", " Tom gets 5 more."), ("x", " y")]
    model = AutoModelForCausalLM.from_pretrained(target, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(target, local_files_only=True)
    for (context, continuation), found in zip(pairs, engine.log_likelihoods(pairs), strict=True):
        before, whole = tokenizer(context)["input_ids"], tokenizer(context + continuation)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
        expected = sum(logits[place - 1, whole[place]].item() for place in range(len(before), len(whole)))
        assert found == pytest.approx(expected, abs=1e-4)


def test_the_harness_own_loop_writes_the_same_completions(engine, target, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    rows = datasets.Dataset.from_list([{"text": prompt, "answer": "9"} for prompt in PROMPTS])
    task = {
        "task": "ours", "custom_dataset": lambda **_: {"test": rows}, "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{text}}", "doc_to_target": "{{answer}}", "target_delimiter": "",
        "generation_kwargs": {"until": [], "max_gen_toks": 12, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip
    with hushed():
        model, tokenizer = harness.load(target)
        results = simple_evaluate(
            HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, add_bos_token=False), tasks=[task],
            task_manager=TaskManager(include_defaults=False), bootstrap_iters=0, log_samples=True,
        )  # fmt: skip
    theirs = {sample["arguments"][0][0] if isinstance(sample["arguments"], list) else sample["doc"]["text"]:
              sample["resps"][0][0] for sample in results["samples"]["ours"]}  # fmt: skip
    ours = ask(engine, PROMPTS[:4], max_new_tokens=12) + ask(engine, PROMPTS[4:], max_new_tokens=12)
    assert [theirs[prompt] for prompt in PROMPTS] == [answer.text for answer in ours]


def test_a_checkpoint_that_lacks_weights_is_refused_and_not_filled_in(tmp_path):
    from safetensors.torch import load_file, save_file

    lacking = checkpoint(tmp_path / "lacking")
    tensors = load_file(lacking / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, lacking / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing: model\.layers\.1\.mlp\.up_proj\.weight \(1 in all\)"):
        harness.load(lacking)


def test_a_checkpoint_with_code_of_its_own_is_refused(tmp_path):
    hostile = checkpoint(tmp_path / "hostile")
    config = json.loads((hostile / "config.json").read_text())
    config |= {"model_type": "unheard_of", "auto_map": {"AutoModelForCausalLM": "code.Model", "AutoConfig": "code.C"}}
    (hostile / "config.json").write_text(json.dumps(config))
    (hostile / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(CheckpointError, match="cannot load|cannot be loaded"):
        harness.load(hostile)
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path):
    endless = checkpoint(tmp_path / "endless")
    for name in ("tokenizer_config.json",):
        document = json.loads((endless / name).read_text())
        document.pop("eos_token")
        document["eos_token"] = None
        (endless / name).write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=re.escape("has no end token, so no completion could ever end")):
        harness.load_tokenizer(endless)


def test_a_tokenizer_whose_vocabulary_was_lost_is_refused(tmp_path):
    """transformers makes one of 5 tokens without a word, and the model is asked nothing."""
    half = checkpoint(tmp_path / "half")
    (half / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"knows nothing of .*it has 5 tokens.*copy tokenizer\.json"):
        harness.load_tokenizer(half)


def test_a_completion_that_met_a_stop_string_is_not_as_long_as_its_neighbours(engine):
    alone = ask(engine, PROMPTS[:1], max_new_tokens=40)[0]
    stop = alone.text[len(alone.text) // 3 :][:4]
    short = ask(engine, PROMPTS[:1], max_new_tokens=40, stop=[stop])[0]
    assert short.tokens < 20
    together = ask(engine, PROMPTS[:4], max_new_tokens=40, stop=[stop])
    assert any(not answer.finished for answer in together)  # so that the batch goes on to the limit
    assert together[0] == short


def llama_like(folder):
    """The tiny checkpoint with a tokenizer that begins every text with a token and has none to pad with."""
    from tokenizers.processors import TemplateProcessing

    path = checkpoint(folder)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    start = next(token for token in tokenizer.get_vocab() if token.startswith("<|") and token != tokenizer.eos_token)
    tokenizer.bos_token = start
    tokenizer.pad_token = None
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A", pair=f"{start} $A {start} $B", special_tokens=[(start, tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(path)
    return path, tokenizer.bos_token_id


def test_the_beginning_token_is_put_once_whether_by_the_template_or_the_tokenizer(tmp_path, monkeypatch):
    path, begin = llama_like(tmp_path / "llama")
    model, tokenizer = harness.load(path)
    assert tokenizer("x")["input_ids"][0] == begin
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    engine = harness.HarnessEngine(model, tokenizer, batch_size=4, longest=60)
    seen = []
    own = model.generate
    monkeypatch.setattr(model, "generate", lambda **more: (seen.append(more["input_ids"][0].tolist()), own(**more))[1])
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Tom has 12."}], tokenize=False)
    for prompt, chat, count in ((text, True, 1), ("Tom has 12.", False, 1), ("Tom has 12.", True, 0)):
        engine.generate([prompt], sampling=Sampling(max_new_tokens=3), sample=0, stop=[], chat=chat)
        assert seen.pop().count(begin) == count  # what a template leaves out is not put
    inputs = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda ids, **more: (inputs.append(ids[0].tolist()), forward(ids, **more))[1])
    engine.log_likelihoods([("Tom has 12.", " Tom gets 5 more.")])
    assert inputs[0].count(begin) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_answers_on_a_cpu_and_repeats_itself(tmp_path, target, dtype):
    half = AutoModelForCausalLM.from_pretrained(target, local_files_only=True).to(dtype)
    path = checkpoint(tmp_path / "half")
    half.save_pretrained(path)
    engine = harness.HarnessEngine(*harness.load(path), batch_size=4, longest=60)
    assert engine.describe()["dtype"] == str(dtype).removeprefix("torch.")
    assert ask(engine, max_new_tokens=5) == ask(engine, max_new_tokens=5)
    assert ask(engine, max_new_tokens=5, temperature=1.0) == ask(engine, max_new_tokens=5, temperature=1.0)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_computes_nan_is_told_and_not_graded(target, temperature):
    model, tokenizer = harness.load(target)
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    engine = harness.HarnessEngine(model, tokenizer, batch_size=4, longest=60)
    with pytest.raises(CheckpointError, match="a token's score is NaN in the batch of .*alpha that is far too large"):
        ask(engine, PROMPTS[:2], max_new_tokens=3, temperature=temperature)


@pytest.mark.parametrize("odd", ["abc", [1, [2]], [1, "2"], True, {"a": 1}])
def test_end_tokens_that_are_none_are_one_message(tmp_path, odd):
    path = checkpoint(tmp_path / "odd")
    settings = json.loads((path / "generation_config.json").read_text())
    (path / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": odd}))
    with pytest.raises(CheckpointError, match="says that completions end with|cannot load"):
        harness.HarnessEngine(*harness.load(path), batch_size=4, longest=60)


@pytest.mark.parametrize(
    "odd", [{"max_length": 3}, {"num_beams": 4, "num_return_sequences": 3}, {"min_new_tokens": 9}, {"penalty_alpha": 1},
            {"suppress_tokens": [5, 6]}, {"no_repeat_ngram_size": 1}, {"forced_bos_token_id": 3}]
)  # fmt: skip
def test_other_settings_of_a_checkpoint_change_nothing(tmp_path, engine, odd):
    path = checkpoint(tmp_path / "odd")
    settings = json.loads((path / "generation_config.json").read_text())
    (path / "generation_config.json").write_text(json.dumps(settings | odd))
    other = harness.HarnessEngine(*harness.load(path), batch_size=4, longest=400)
    assert ask(other, max_new_tokens=8) == ask(engine, max_new_tokens=8)


def test_weights_that_are_to_change_are_no_files_and_tied_ones_stay_tied(target):
    mapped, _ = harness.load(target)
    owned, _ = harness.load(target, to_change=True)
    assert owned.lm_head.weight.data_ptr() == owned.model.embed_tokens.weight.data_ptr()
    for (name, one), other in zip(mapped.named_parameters(), owned.parameters(), strict=True):
        assert torch.equal(one, other), name
        assert one.data_ptr() != other.data_ptr()
    before = (target / "model.safetensors").read_bytes()
    with torch.no_grad():
        owned.model.norm.weight.add_(1)
    assert (target / "model.safetensors").read_bytes() == before


def test_draws_of_one_prompt_depend_on_the_batch_it_is_in(engine):
    """Else every batch would draw with the same random numbers, and its problems would be right and wrong together."""
    first, other, another = sorted(PROMPTS, key=len, reverse=True)[:3]
    one = ask(engine, [first, other], max_new_tokens=8, temperature=1.0, seed=5)
    two = ask(engine, [first, another], max_new_tokens=8, temperature=1.0, seed=5)
    assert one[0] != two[0]
