"""`reasonvec train pair` on the lab's models: does the vector that TRL's donors give improve the lab's target?

Pre-trains the ancestor and the target as the demo does, writes the donors' sums as a JSONL file, runs the command with
one thread, adds the vector and measures target and enhanced on the same held-out problems. The seed and what counts as
success are fixed here, before the run. Writes OUT/result.json.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from reasonvec.evaluation.generation import evaluate_checkpoint
from reasonvec.evaluation.statistics import paired_difference
from reasonvec.lab.donors import train_ancestor, train_target
from reasonvec.lab.recipe import Recipe
from reasonvec.lab.world import KINDS, Habit, donor_documents, problems
from reasonvec.weights import apply, write_random

SEED = 200
"""Used for nothing else."""
MINUTES = 15
SIGNIFICANT = 0.01
KIND = "start"
"""The target's own instructions, which the donors have never seen."""
ROWS = 4000
HELD_OUT = 200


def main() -> int:
    """Run it, write the result, and exit with 1 where it is not what is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/train-pair"))
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    result = run(arguments.out, arguments.seed, Recipe())
    print(json.dumps(result, indent=1))
    return 0 if succeeded(result) else 1


def run(out: Path, seed: int, recipe: Recipe) -> dict[str, Any]:
    """All of it at the numbers of `recipe`; the result, which is also written."""
    out.mkdir(parents=True)
    base, target, data = out / "base", out / "target", out / "sums.jsonl"
    train_ancestor(out=base, recipe=recipe, seed=seed, advance=lambda done, note: None)
    train_target(ancestor=base, out=target, recipe=recipe, seed=seed, advance=lambda done, note: None)
    write_sums(data, seed=seed, slip=recipe.donor.slip)
    (out / "pair.yaml").write_text(yaml.safe_dump(settings(recipe, seed)))
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "reasonvec", "train", "pair", "--model", base, "--data", data, "--bare",
         "--config", out / "pair.yaml", "--held-out", str(HELD_OUT), "--out", out / "pair"],
        # two threads are a tenth quicker on idle cores, and ten times slower where something else wants the same ones
        check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    seconds = time.monotonic() - began
    result = {"seed": seed, "recipe": asdict(recipe), "seconds": round(seconds, 1),
              **measure(out, seed, count=recipe.problems, longest=recipe.longest)}  # fmt: skip
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def succeeded(result: dict[str, Any]) -> bool:
    """A significant gain of the target at alpha 1, within the time, and none from noise of the same size."""
    gain, noise = result["gain"], result["random"]
    return bool(
        result["seconds"] <= 60 * MINUTES and gain["points"] > 0 and gain["p"] < SIGNIFICANT
        and noise["p"] >= SIGNIFICANT
    )  # fmt: skip


def write_sums(file: Path, *, seed: int, slip: float) -> None:
    """Distinct questions with worked answers that have the lab's bad habit, and the right gold answers."""
    rows: dict[str, dict[str, str]] = {}
    for document in islice(donor_documents(seed, Habit(slip)), 20 * ROWS):
        if len(rows) == ROWS:
            break
        rows.setdefault(document.prompt, {
            "question": document.prompt, "answer": document.completion, "gold": str(value_of(document.prompt)),
        })  # fmt: skip
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows.values()))


def value_of(question: str) -> int:
    """The value of the sum that a donor's question asks for."""
    return sum(int(sign + digits) for sign, digits in re.findall(r"([+-]?) ?(\d+)", question))


def settings(recipe: Recipe, seed: int) -> dict[str, dict[str, Any]]:
    """The recipe's numbers in TRL's fields."""
    donor, reinforcement = recipe.donor, recipe.reinforcement
    return {
        "sft": {
            "seed": seed, "max_steps": donor.steps, "per_device_train_batch_size": donor.batch,
            "learning_rate": donor.learning_rate, "warmup_steps": donor.warmup, "lr_scheduler_type": "cosine",
        },
        "grpo": {
            "seed": seed, "max_steps": reinforcement.steps, "num_generations": reinforcement.samples,
            "per_device_train_batch_size": reinforcement.prompts * reinforcement.samples,  # TRL counts completions
            "learning_rate": reinforcement.learning_rate, "warmup_steps": reinforcement.warmup,
            "lr_scheduler_type": "linear", "max_completion_length": reinforcement.longest, "temperature": 1.0,
            "beta": 0.0,
        },
    }  # fmt: skip


def measure(out: Path, seed: int, *, count: int, longest: int) -> dict[str, Any]:
    """Target, enhanced, and the target with noise of the vector's size, on the same held-out problems."""
    apply(vectors=[(out / "pair" / "vector", 1.0)], target=out / "target", out=out / "enhanced")
    write_random(vector=out / "pair" / "vector", out=out / "noise", seed=seed)
    apply(vectors=[(out / "noise", 1.0)], target=out / "target", out=out / "random")
    asked = problems(next(kind for kind in KINDS if kind.name == KIND), seed, count=count)
    right = {
        name: [outcome.correct for outcome in evaluate_checkpoint(out / name, asked, max_new_tokens=longest)]
        for name in ("target", "enhanced", "random")
    }
    gain, noise = (paired_difference(right[name], right["target"]) for name in ("enhanced", "random"))
    return {
        "problems": count, "accuracy": {name: sum(marks) / len(marks) for name, marks in right.items()},
        "gain": asdict(gain), "random": asdict(noise),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
