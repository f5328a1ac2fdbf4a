"""Data for donors: layouts, missing answers, the held-out part, overlap with benchmarks, prompts and lengths."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reasonvec.errors import BenchmarkError, UsageError
from reasonvec.evaluation.benchmarks import BenchmarkProblem
from reasonvec.evaluation.benchmarks.catalog import TASKS
from reasonvec.evaluation.prompts import PromptStyle, build_messages
from reasonvec.lab.world import world_tokenizer
from reasonvec.training import data as module
from reasonvec.training.data import (
    answer_of,
    check_lengths,
    encode,
    load_training_data,
    overlap_with_benchmarks,
    prompt_of,
)
from tests.training.small import BARE, write_sums

CHAT = PromptStyle()


def _write(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(file)


def _load(data: str, **others: Any) -> Any:
    return load_training_data(data, data_dir=Path(data).parent, **{"seed": 0, "solutions": True, **others})


def test_the_layouts_of_gsm8k_and_of_math_are_read(tmp_path: Path) -> None:
    data = _load(_write(tmp_path / "d.jsonl", [
        {"question": "Q1", "answer": "3*4=<<3*4=12>>12\n#### 12"},
        {"problem": "Q2", "solution": "Half is $\\boxed{\\frac{1}{2}}$."},
        {"problem": "Q3", "solution": "It is two.", "answer": "2", "level": "Level 1"},
        {"question": "Q4", "answer": "worked and done", "gold": "done"},
    ]), held_out=0)  # fmt: skip
    assert [(problem.question, problem.gold, problem.kind) for problem in data.training] == [
        ("Q1", "12", "number"), ("Q2", "\\frac{1}{2}", "expression"), ("Q3", "2", "number"), ("Q4", "done", "text"),
    ]  # fmt: skip


def test_rows_without_an_answer_are_listed_by_line(tmp_path: Path) -> None:
    rows = [{"question": "Q", "answer": "1 + 1 = 2 #### 2"}, {"question": "R"}, {"question": "S", "answer": "it ####"}]
    with pytest.raises(BenchmarkError, match=r"line 2: `answer` is missing.*line 3: no answer is named"):
        _load(_write(tmp_path / "d.jsonl", rows))


def test_answers_without_a_solution_are_for_grpo_alone(tmp_path: Path) -> None:
    file = _write(tmp_path / "d.jsonl", [{"question": f"Q{n}", "answer": str(n)} for n in range(3)])
    with pytest.raises(BenchmarkError, match=r"3 problems, d/.* have an answer and no worked solution"):
        _load(file)
    assert len(_load(file, solutions=False).training) == 3


def test_programs_are_not_trained_on(tmp_path: Path) -> None:
    file = _write(tmp_path / "d.jsonl", [{"question": "Q", "answer": "def f(): pass", "kind": "program"}])
    with pytest.raises(BenchmarkError, match="are of kind program"):
        _load(file)


def test_the_held_out_part_is_a_function_of_the_seed_and_never_trained_on(tmp_path: Path) -> None:
    file = str(write_sums(tmp_path / "d.jsonl", 40))
    once, again, other = _load(file), _load(file), _load(file, seed=1)
    assert len(once.held_out) == 4  # a tenth
    assert once == again
    assert once.held_out != other.held_out
    assert not {p.question for p in once.held_out} & {p.question for p in once.training}
    assert _load(file, held_out=0).held_out == ()
    with pytest.raises(UsageError, match="none would be left"):
        _load(file, held_out=40)


def test_a_held_out_question_that_is_asked_again_is_not_trained_on(tmp_path: Path) -> None:
    rows = [{"id": f"{n}", "question": "What  is it?" if n % 2 else "what is IT?", "answer": f"a {n} b #### {n}"}
            for n in range(10)]  # fmt: skip
    rows.append({"id": "other", "question": "And this?", "answer": "c d e #### 3"})
    found = [_load(_write(tmp_path / "d.jsonl", rows), held_out=1, seed=seed) for seed in range(6)]
    for data in found:
        assert {"other"} == {p.id for p in data.training} or data.held_out[0].id == "other"
    assert any(data.repeated == 9 for data in found)


def test_whole_questions_of_a_benchmark_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    words = "A farmer has {} cows and buys {} more of them at the market on Monday. How many has he?"
    test = _write(tmp_path / "test.jsonl", [{"question": words.format(n, n), "answer": str(2 * n)} for n in range(5)])
    clean = str(write_sums(tmp_path / "clean.jsonl", 12))
    copied = _write(tmp_path / "copied.jsonl", [
        {"question": words.format(2, 2), "answer": "2 + 2 = 4 #### 4"}, {"question": "Q", "answer": "1 1 2 #### 2"},
    ])  # fmt: skip
    where: dict[str, Any] = {"benchmarks": [test], "data_dir": tmp_path}
    counts, warnings = overlap_with_benchmarks(_load(clean), allowed=False, **where)
    assert counts[test] == {"problems": 5, "training_rows": 0, "exact": 0, "normalised": 0, "partial": 0}
    assert warnings == []
    with pytest.raises(BenchmarkError, match="holds, word for word, 1 of 5 questions"):
        overlap_with_benchmarks(_load(copied, held_out=0), allowed=False, **where)
    counts, warnings = overlap_with_benchmarks(_load(copied, held_out=0), allowed=True, **where)
    assert counts[test]["exact"] == 1
    assert any("word for word" in warning for warning in warnings)


def test_the_training_file_is_not_looked_for_in_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _load(str(write_sums(tmp_path / "train.jsonl")))
    itself = replace(TASKS["gsm8k/train"], file=replace(TASKS["gsm8k/train"].file, path="train.jsonl"))
    monkeypatch.setattr(module, "TASKS", {"itself": replace(itself, file=replace(itself.file, sha256=data.sha256))})
    counts, _ = overlap_with_benchmarks(data, benchmarks=[], data_dir=tmp_path, allowed=False)
    assert counts == {}


def test_runs_of_words_are_said_and_no_reason_to_stop(tmp_path: Path) -> None:
    shared = "A farmer has many brown cows and buys some more"
    test = _write(tmp_path / "test.jsonl", [{"question": f"{shared} today. How many now?", "answer": "2"}])
    file = _write(tmp_path / "d.jsonl", [{"question": f"{shared} sheep. And now?", "answer": "1 + 1 = 2 #### 2"}])
    counts, (warning,) = overlap_with_benchmarks(
        _load(file, held_out=0), benchmarks=[test], data_dir=tmp_path, allowed=False
    )
    assert counts[test]["partial"] == 1
    assert "1 of 1 questions of" in warning


def test_no_benchmark_at_hand_is_said(tmp_path: Path) -> None:
    data = _load(str(write_sums(tmp_path / "d.jsonl")))
    counts, (warning,) = overlap_with_benchmarks(data, benchmarks=[], data_dir=tmp_path, allowed=False)
    assert counts == {}
    assert "--data-dir" in warning


@pytest.mark.parametrize(
    ("problem", "written"),
    [
        (BenchmarkProblem("i", "t", "Q", "12", "number", "3*4=<<3*4=12>>12\n#### 12"),
         "3*4=12\nThe final answer is \\boxed{12}."),
        (BenchmarkProblem("i", "t", "Q", "1", "expression", "So $\\boxed{1}$."), "So $\\boxed{1}$."),
        (BenchmarkProblem("i", "t", "Q", "yes", "text", "It is. #### yes"), "It is.\nSo the answer is yes."),
    ],
)  # fmt: skip
def test_an_answer_has_the_form_that_the_prompt_asks_for(problem: BenchmarkProblem, written: str) -> None:
    assert answer_of(problem, CHAT) == written
    assert answer_of(problem, BARE) == f" {problem.solution}"


def test_prompts_are_those_of_evaluation() -> None:
    problem = BenchmarkProblem("i", "t", "What is 3 + 4?", "7", "number", "3 + 4 = 7 #### 7")
    assert prompt_of(problem, CHAT) == build_messages(problem, CHAT)
    assert prompt_of(problem, BARE) == "What is 3 + 4?"
    tokenizer = world_tokenizer()
    (bare,), (chat,) = (encode([problem], style, tokenizer) for style in (BARE, CHAT))
    assert tokenizer.decode(bare.prompt_ids) == "What is 3 + 4?"
    assert bare.answer_ids[-1] == chat.answer_ids[-1] == tokenizer.eos_token_id
    expected = tokenizer.apply_chat_template([dict(message) for message in build_messages(problem, CHAT)],
                                             add_generation_prompt=True)  # fmt: skip
    assert chat.prompt_ids == list(expected["input_ids"])


def test_what_would_be_cut_off_is_refused_with_its_problem() -> None:
    tokenizer = world_tokenizer()
    problem = BenchmarkProblem("long/1", "t", "What is 3 + 4?", "7", "number", "3 + 4 = 7 #### 7")
    examples = encode([problem], BARE, tokenizer)
    total = len(examples[0].prompt_ids) + len(examples[0].answer_ids)
    check_lengths(examples, answer_tokens=None, limit=total, what="the context")
    with pytest.raises(BenchmarkError, match=rf"long/1.*take up to {total} tokens, and the context is {total - 1}"):
        check_lengths(examples, answer_tokens=None, limit=total - 1, what="the context")
    with pytest.raises(BenchmarkError, match="and 100 tokens for the answer"):
        check_lengths(examples, answer_tokens=100, limit=64, what="the context")
