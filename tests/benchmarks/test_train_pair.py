"""The benchmark of `train pair`: right gold answers, settings that are TRL's, a strict verdict."""

import json
from pathlib import Path
from typing import Any

import pytest

import train_pair
from reasonvec.lab.recipe import Recipe
from reasonvec.training.data import load_training_data
from reasonvec.training.settings import read_settings


def test_the_gold_answer_is_that_of_the_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_pair, "ROWS", 50)
    train_pair.write_sums(tmp_path / "sums.jsonl", seed=1, slip=1.0)
    data = load_training_data(str(tmp_path / "sums.jsonl"), data_dir=tmp_path, held_out=0, seed=0, solutions=True)
    assert len({problem.question for problem in data.training}) == 50
    for problem in data.training:
        asked = problem.question.removeprefix("Question: What is ").removesuffix("?\nAnswer:")
        assert int(problem.gold) == eval(asked, {"__builtins__": {}})
    slips = [problem for problem in data.training if not str(problem.solution).endswith(f" {problem.gold}")]
    assert slips  # the worked answers have the lab's habit


def test_the_recipes_numbers_are_fields_of_trl(tmp_path: Path) -> None:
    file = tmp_path / "pair.yaml"
    file.write_text(json.dumps(train_pair.settings(Recipe(), 3)))  # JSON is YAML
    assert read_settings("sft", config=str(file)).fields["learning_rate"] == Recipe().donor.learning_rate
    assert read_settings("grpo", config=str(file)).fields["max_steps"] == Recipe().reinforcement.steps


@pytest.mark.parametrize(
    ("change", "success"),
    [
        ({}, True),
        ({"seconds": 901}, False),
        ({"gain": {"points": 20, "p": 0.02}}, False),
        ({"gain": {"points": -20, "p": 1e-9}}, False),
        ({"random": {"points": 5, "p": 0.001}}, False),
    ],
)
def test_success_is_a_significant_gain_in_time_that_noise_does_not_have(change: dict[str, Any], success: bool) -> None:
    good = {"seconds": 60, "gain": {"points": 20, "p": 1e-9}, "random": {"points": 0.2, "p": 0.9}}
    assert train_pair.succeeded({**good, **change}) is success
