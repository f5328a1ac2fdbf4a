"""recipes/lab.yaml, its numbers made small, run from nothing to the last comparison by the program's own commands."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from reasonvec.cli import main as program
from tests.recipes.test_recipes import REPOSITORY, script  # which puts scripts/ on the path

import lab_models  # isort: skip

pytestmark = pytest.mark.lab
PROBLEMS = 20
SMALL: dict[str, Any] = {
    "sft_set": ["max_steps=3", "per_device_train_batch_size=8"],
    "grpo_set": ["max_steps=3", "per_device_train_batch_size=16", "max_completion_length=12", "learning_rate=1.0e-3"],
}


def in_process(words: list[str]) -> int:
    """One command without a process of its own, which would spend ten seconds on loading torch."""
    if words[0] == "python":
        lab_models.main(["--steps", "20", *words[2:]])
        return 0
    assert words[0] == "reasonvec"
    try:
        program.main(words[1:], "reasonvec")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_small_recipe_goes_all_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = yaml.safe_load((REPOSITORY / "recipes/lab.yaml").read_text())
    recipe["donors"]["trained"] |= SMALL
    recipe["dev"]["alphas"] = [1.0]
    recipe["benchmarks"][0] |= {"limit": PROBLEMS, "max_new_tokens": 12}
    recipe["controls"] |= {"random": 1, "permuted": 0}
    (tmp_path / "lab.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "execute", in_process)
    script.main(["lab.yaml", "--run"])

    out = tmp_path / "runs/lab/trained"
    assert json.loads((out / "alpha.json").read_text())["alpha"] == 1.0
    assert (out / "trajectory.png").stat().st_size > 10_000 and (out / "vector.png").stat().st_size > 10_000
    arms = {path.name: json.loads((path / "run.json").read_text()) for path in (out / "runs/test/start").iterdir()}
    assert {"target", "target-again", "vector", "vector-1", "minus", "sft", "grpo", "sft-update", "interpolation",
            "random-1"} == set(arms)  # fmt: skip
    assert {run["benchmark"]["problems_sha256"] for run in arms.values()} == {
        arms["target"]["benchmark"]["problems_sha256"]
    }
    assert arms["target"]["arm"]["fingerprint"] == arms["target-again"]["arm"]["fingerprint"]
    assert (arms["minus"]["arm"]["alpha"], arms["random-1"]["arm"]["control"]) == (-1.0, "random")
    outcomes = [(out / "runs/test/start" / name / "outcomes.jsonl").read_text() for name in ("target", "target-again")]
    assert outcomes[0] == outcomes[1] and len(outcomes[0].splitlines()) == PROBLEMS

    called: list[str] = []
    monkeypatch.setattr(script, "execute", lambda words: called.append(words[1]) or 0)
    script.main(["lab.yaml", "--run"])
    assert set(called) == {"overlap", "check", "stats"}  # all else is done
