"""The tokenizer, as it comes back from disk through AutoTokenizer, for every text of the world and for any other."""

from itertools import islice
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from reasonvec.lab.world import KINDS, Habit, pretraining_documents, problems, world_tokenizer
from tests.lab.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def reloaded(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    return AutoTokenizer.from_pretrained(tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny"))


def _texts() -> list[str]:
    documents = islice(pretraining_documents(0, Habit(0.6)), 2_000)
    asked = [problem.prompt for kind in KINDS for problem in problems(kind, 0, count=50)]
    return [f"{document.prompt} {document.completion}" for document in documents] + asked


def test_every_text_of_the_world_comes_back_from_its_ids(reloaded) -> None:  # type: ignore[no-untyped-def]
    fresh = world_tokenizer()
    for text in _texts():
        ids = reloaded(text)["input_ids"]
        assert ids == fresh(text)["input_ids"]
        assert reloaded.decode(ids) == text


@pytest.mark.parametrize("text", ["", "Grüße, 1234 ≠ 12!", "  two  spaces\t\n", "Tomato 120"])
def test_any_other_text_comes_back_too(reloaded, text: str) -> None:  # type: ignore[no-untyped-def]
    assert reloaded.decode(reloaded(text)["input_ids"]) == text


def test_numbers_and_words_are_one_token_each(reloaded) -> None:  # type: ignore[no-untyped-def]
    text = "Question: What is 12 + 5 - 38?\nAnswer: 12 + 5 = 17 - 8 = 9 # 9"
    pieces = [reloaded.decode([token]) for token in reloaded(text)["input_ids"]]
    expected = ["Question:", " What", " is", " 12", " +", " 5", " -", " 38", "?", "\nAnswer:", " 12", " +", " 5"]
    assert pieces[: len(expected)] == expected


def test_the_chat_template_survives_and_its_prompt_begins_the_conversation(reloaded) -> None:  # type: ignore[no-untyped-def]
    question = {"role": "user", "content": "Start with 3, add 4."}
    answer = {"role": "assistant", "content": "3 plus 4 is 7 so 7"}
    prompt = reloaded.apply_chat_template([question], add_generation_prompt=True, tokenize=False)
    whole = reloaded.apply_chat_template([question, answer], tokenize=False)
    assert prompt == "<|user|> Start with 3, add 4.<|assistant|>"
    assert whole == prompt + " 3 plus 4 is 7 so 7<|end|>"
    assert reloaded(whole)["input_ids"][: len(reloaded(prompt)["input_ids"])] == reloaded(prompt)["input_ids"]
    with pytest.raises(Exception, match="only user and assistant"):
        reloaded.apply_chat_template([{"role": "system", "content": "x"}], tokenize=False)


def test_padding_and_end_are_different_tokens(reloaded) -> None:  # type: ignore[no-untyped-def]
    assert reloaded.padding_side == "left"
    assert reloaded.pad_token_id != reloaded.eos_token_id
    assert reloaded.decode(reloaded("<|end|>")["input_ids"], skip_special_tokens=True) == ""


def test_the_checkpoint_of_the_lab_is_small(tmp_path: Path) -> None:
    size = sum(path.stat().st_size for path in tiny_checkpoint(tmp_path / "tiny").iterdir())
    assert size < 200_000
