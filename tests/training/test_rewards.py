"""Rewards: what earns one, and that the cheap ways to one are closed."""

from pathlib import Path

import pytest

from reasonvec.errors import UsageError
from reasonvec.evaluation.benchmarks import BenchmarkProblem
from reasonvec.training.rewards import Task, exact, find_rewards, format_, length, marked_answers

END = 1
TASK = Task({"p": BenchmarkProblem("p", "t", "What is 3 + 6?", "9", "number")}, frozenset([END]), longest=100)
WORKED = "3 + 6 = 9. The final answer is \\boxed{9}."


def _exact(text: str, *, ended: bool = True) -> float:
    return exact(TASK)(completions=[text], completion_ids=[[5, END] if ended else [5, 6]], id=["p"])[0]


def _format(text: str, *, ended: bool = True) -> float:
    return format_(TASK)(completions=[text], completion_ids=[[5, END] if ended else [5, 6]])[0]


@pytest.mark.parametrize("text", [WORKED, "3 + 6 = 9 #### 9", "3 plus 6 is 9, so the answer is 9.", "3+6=9#9"])
def test_a_worked_right_answer_earns_both(text: str) -> None:
    assert (_exact(text), _format(text)) == (1.0, 1.0)


def test_a_worked_wrong_answer_earns_the_format_alone() -> None:
    text = WORKED.replace("9", "8")
    assert (_exact(text), _format(text)) == (0.0, 1.0)


@pytest.mark.parametrize(
    "text",
    [
        "9",
        "#### 9",
        "The answer is 9.",
        "\\boxed{9}",
        "9 9 9 9 #### 9",  # the answer again and again is no working
        "3 + 6 = \\boxed{8} or \\boxed{7} or rather \\boxed{9}",  # one of many is right
        "3 + 6 = 7 #### 7 #### 8 #### 9",
        "",
    ],
)
def test_cheap_ways_are_refused(text: str) -> None:
    assert _exact(text) == 0.0
    assert _format(text) == 0.0


def test_an_answer_without_an_end_is_refused() -> None:
    assert _exact(WORKED, ended=False) == 0.0
    assert _format(WORKED, ended=False) == 0.0


def test_conversations_are_read_by_their_last_message() -> None:
    chat = [{"role": "assistant", "content": WORKED}]
    assert exact(TASK)(completions=[chat], completion_ids=[[5, END]], id=["p"]) == [1.0]


def test_boxes_with_commas_between_are_one_answer() -> None:
    assert marked_answers("the roots are \\boxed{1} and \\boxed{2}") == ["1, 2"]


def test_the_length_penalty_is_dapos_formula() -> None:
    """arXiv:2503.14476, equation 13, with L = 100 and C = 20."""
    ids = [[0] * count for count in (1, 80, 85, 90, 100)]
    assert length(TASK)(completion_ids=ids) == [0.0, 0.0, -0.25, -0.5, -1.0]


def test_a_function_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reasonvec_own_reward.py").write_text(
        "def seven(*, completions, **columns):\n    return [7.0 for _ in completions]\nnumber = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # so that it is taken off again
    first, own = find_rewards(["exact", "reasonvec_own_reward:seven"], TASK)
    assert first.__name__ == "exact"
    assert own(completions=["a", "b"]) == [7.0, 7.0]
    with pytest.raises(UsageError, match="has no eight"):
        find_rewards(["reasonvec_own_reward:eight"], TASK)
    with pytest.raises(UsageError, match="is no function but a int"):
        find_rewards(["reasonvec_own_reward:number"], TASK)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["exakt"], "'exakt' is no reward: there are exact, format, length"),
        (["no_such_module_here:f"], "cannot be imported"),
        (["os; import sys:f"], "is no reward"),
        (["exact", "exact"], "given twice"),
        ([], "GRPO needs a --reward"),
    ],
)
def test_names_that_are_no_rewards(names: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_rewards(names, TASK)
