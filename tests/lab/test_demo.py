"""The demo from end to end on a recipe too short to learn anything: files, names, pairings, and what it refuses.

That the vector helps is measured by `make lab-seeds`, whose table is in docs/lab.md; it takes minutes a seed.
"""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from reasonvec.errors import MissingExtraError, OutputError
from reasonvec.evaluation.statistics import exact_mcnemar
from reasonvec.lab.demo import MARKER, demo
from reasonvec.lab.recipe import FineTuning, Pretraining, Recipe, Reinforcement
from reasonvec.lab.world import KINDS
from reasonvec.training import require
from tests.lab.tiny import SHAPE

pytestmark = pytest.mark.lab

PROBLEMS = 12
RECIPE = Recipe(
    shape=SHAPE,
    pretraining=Pretraining(steps=6, batch=8, warmup=2),
    donor=FineTuning(steps=2, batch=4, warmup=1),
    target=FineTuning(steps=2, batch=4, warmup=1),
    reinforcement=Reinforcement(steps=2, prompts=2, samples=4, warmup=1, longest=8),
    problems=PROBLEMS,
    longest=8,
)
ARMS = [
    "ancestor", "sft", "grpo", "target", "target-1.0v", "target-0.5v", "target+0.25v", "target+0.5v", "target+0.75v",
    "target+1.0v", "target+1.25v", "target+1.5v", "target+2.0v", "random-1", "random-2", "random-3", "permuted",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, demo(out, seed=3, recipe=RECIPE)


def test_it_writes_what_it_promises_and_nothing_else(finished: tuple[Path, dict[str, Any]]) -> None:
    out, results = finished
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [MARKER, "controls", "enhanced", "models", "report.html", "results.json", "vector"]
    )
    assert sorted(path.name for path in (out / "models").iterdir()) == ["ancestor", "grpo", "sft", "target"]
    assert json.loads((out / "results.json").read_text()) == results
    for name in ("models/ancestor", "models/sft", "models/grpo", "models/target", "enhanced"):
        assert AutoModelForCausalLM.from_pretrained(out / name).config.model_type == "qwen2"
        assert AutoTokenizer.from_pretrained(out / name).chat_template


def test_every_arm_answers_every_kind(finished: tuple[Path, dict[str, Any]]) -> None:
    _, results = finished
    kinds = [kind.name for kind in KINDS]
    measured = {(entry["arm"], entry["kind"]): entry for entry in results["arms"]}
    assert set(measured) == {(arm, kind) for arm in ARMS for kind in [*kinds, "all"]}
    assert {entry["n"] for key, entry in measured.items() if key[1] != "all"} == {PROBLEMS}
    for arm in ARMS:
        pooled = sum(measured[arm, kind]["correct"] for kind in kinds if kind != "aux")
        assert (measured[arm, "all"]["n"], measured[arm, "all"]["correct"]) == (9 * PROBLEMS, pooled)
    assert all(entry["correct"] <= entry["finished"] <= entry["n"] for entry in results["arms"])
    assert measured["target", "start"]["alpha"] == 0.0
    assert measured["target-1.0v", "start"]["alpha"] == -1.0
    assert measured["random-1", "start"]["alpha"] is None


def test_differences_are_those_of_the_accuracies(finished: tuple[Path, dict[str, Any]]) -> None:
    _, results = finished
    correct = {(entry["arm"], entry["kind"]): entry["correct"] for entry in results["arms"]}
    compared = {(entry["arm"], entry["baseline"]) for entry in results["differences"]}
    assert compared >= {(arm, "target") for arm in ARMS[4:]} | {("grpo", "sft")}
    for entry in results["differences"]:
        gained = correct[entry["arm"], entry["kind"]] - correct[entry["baseline"], entry["kind"]]
        assert entry["points"] == pytest.approx(100 * gained / entry["n"], abs=1e-3)
        assert entry["low"] <= entry["points"] <= entry["high"]
        if gained == 0:
            assert entry["p"] == exact_mcnemar(gained=0, lost=0)


def test_no_process_is_left_behind(finished: tuple[Path, dict[str, Any]]) -> None:
    for child in multiprocessing.active_children():
        child.join(timeout=20)
        assert not child.is_alive()


def test_a_former_demo_is_replaced_and_the_same_seed_gives_the_same_models(
    finished: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    out, results = finished
    weights = {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    (out / "models" / "stale").mkdir()
    again = demo(out, seed=3, recipe=RECIPE)
    assert {path: path.read_bytes() for path in out.rglob("*.safetensors")} == weights
    assert again["arms"] == results["arms"]
    assert again["differences"] == results["differences"]
    captured = capsys.readouterr()
    assert str(out / "report.html") in captured.out
    assert "toy world" in captured.out
    assert "GRPO donor" in captured.err


@pytest.mark.parametrize("what", ["directory", "file"])
def test_somebody_elses_directory_is_refused_and_left_alone(tmp_path: Path, what: str) -> None:
    precious = tmp_path / "out" / "thesis.txt" if what == "directory" else tmp_path / "out"
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("mine")
    with pytest.raises(OutputError, match=r"Name another --out"):
        demo(tmp_path / "out", recipe=RECIPE)
    assert precious.read_text() == "mine"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [precious]


def test_a_missing_package_names_the_pip_line() -> None:
    with pytest.raises(MissingExtraError, match=r'not installed: no_such_package\. .*pip install "reasonvec\[demo\]"'):
        require("demo", "torch", "no_such_package")
