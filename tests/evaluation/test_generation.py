"""Generation, against transformers' own `generate`, and independent of how problems are batched."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from reasonvec.evaluation.generation import encode_prompts, evaluate, evaluate_checkpoint, generate
from reasonvec.evaluation.outcomes import Problem
from reasonvec.lab.world import KINDS, problems
from tests.lab.tiny import tiny_checkpoint

NEW_TOKENS = 12


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def asked() -> list[Problem]:
    """Problems of every kind, so of many lengths, in and out of chat."""
    return [problem for kind in KINDS for problem in problems(kind, 0, count=4)]


def _loaded(checkpoint: Path):  # type: ignore[no-untyped-def]
    return AutoModelForCausalLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)


def test_greedy_completions_are_those_of_transformers_one_prompt_at_a_time(
    checkpoint: Path, asked: list[Problem]
) -> None:
    model, tokenizer = _loaded(checkpoint)
    prompts = encode_prompts(tokenizer, asked)
    ours = generate(
        model,
        prompts,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=NEW_TOKENS,
    )
    theirs = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS)
        theirs.append(whole[0, len(prompt) :].tolist())
    assert ours == theirs
    assert len({tuple(row) for row in ours}) > 5  # not one answer to everything


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_completions_do_not_depend_on_the_batch(checkpoint: Path, asked: list[Problem], batch_size: int) -> None:
    model, tokenizer = _loaded(checkpoint)
    settings = {"max_new_tokens": NEW_TOKENS}
    reference = evaluate(model, tokenizer, asked, **settings)
    assert evaluate(model, tokenizer, asked, batch_size=batch_size, **settings) == reference
    shuffled = evaluate(model, tokenizer, asked[::-1], batch_size=batch_size, **settings)
    assert shuffled[::-1] == reference


def test_a_checkpoint_is_measured_like_the_model_in_it(checkpoint: Path, asked: list[Problem]) -> None:
    model, tokenizer = _loaded(checkpoint)
    assert evaluate_checkpoint(checkpoint, asked, max_new_tokens=NEW_TOKENS) == evaluate(
        model, tokenizer, asked, max_new_tokens=NEW_TOKENS
    )


def test_a_row_ends_with_the_end_token_and_others_go_on(checkpoint: Path, asked: list[Problem]) -> None:
    model, tokenizer = _loaded(checkpoint)
    prompts = encode_prompts(tokenizer, asked)
    settings = {"pad_token_id": tokenizer.pad_token_id, "max_new_tokens": NEW_TOKENS}
    endless = generate(model, prompts, eos_token_id=-1, **settings)
    assert {len(row) for row in endless} == {NEW_TOKENS}
    # any token that comes up in the middle serves as an end token
    end = endless[0][NEW_TOKENS // 2]
    ended = generate(model, prompts, eos_token_id=end, **settings)
    expected = [row[: row.index(end) + 1] if end in row else row for row in endless]
    assert ended == expected
    assert len({len(row) for row in ended}) > 1


def test_an_answer_cut_off_at_the_limit_is_not_finished(checkpoint: Path, asked: list[Problem]) -> None:
    model, tokenizer = _loaded(checkpoint)
    with torch.no_grad():  # an end token that never wins
        model.lm_head.weight[tokenizer.eos_token_id] = 0
    outcomes = evaluate(model, tokenizer, asked, max_new_tokens=3)
    assert not any(outcome.correct for outcome in outcomes if not outcome.finished)


def test_sampling_follows_the_models_probabilities(checkpoint: Path) -> None:
    model, tokenizer = _loaded(checkpoint)
    prompt = encode_prompts(tokenizer, [Problem("1", "x", "What is 3 + 4?", "7")])[0]
    with torch.no_grad():
        expected = (model(torch.tensor([prompt])).logits[0, -1] / 0.7).softmax(-1)
    drawn = generate(
        model,
        [prompt] * 4000,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=1,
        temperature=0.7,
        generator=torch.Generator().manual_seed(3),
    )
    counts = torch.bincount(torch.tensor([row[0] for row in drawn]), minlength=len(expected))
    frequent = expected > 0.01
    error = (counts / 4000 - expected)[frequent].abs()
    assert frequent.sum() > 3
    assert (error < 5 * (expected * (1 - expected) / 4000).sqrt()[frequent]).all()


def test_the_same_generator_draws_the_same(checkpoint: Path, asked: list[Problem]) -> None:
    model, tokenizer = _loaded(checkpoint)
    prompts = encode_prompts(tokenizer, asked)

    def draw(seed: int) -> list[list[int]]:
        return generate(
            model,
            prompts,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            max_new_tokens=NEW_TOKENS,
            temperature=1.0,
            generator=torch.Generator().manual_seed(seed),
        )

    assert draw(1) == draw(1) != draw(2)


def test_generation_leaves_the_training_mode_as_it_was(checkpoint: Path, asked: list[Problem]) -> None:
    model, tokenizer = _loaded(checkpoint)
    model.train()
    evaluate(model, tokenizer, asked[:2], max_new_tokens=2)
    assert model.training
