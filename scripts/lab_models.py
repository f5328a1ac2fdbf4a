"""Make what recipes/lab.yaml begins with: base and target by the lab's recipe, sums to train on, problems to measure.

    python scripts/lab_models.py [--steps N] OUT      some two minutes on one core

In OUT: base, target, sums.jsonl with worked answers that have the lab's bad habit, start.jsonl in the target's words.
"""

import argparse
import json
import re
import sys
import tempfile
from dataclasses import replace
from itertools import islice
from pathlib import Path

from reasonvec.lab.donors import train_ancestor, train_target
from reasonvec.lab.recipe import Recipe
from reasonvec.lab.tokenizer import ASSISTANT, USER
from reasonvec.lab.world import KINDS, Habit, donor_documents, problems

ROWS = 4000
"""Different sums to train on; as many as the lab's donors see."""
PROBLEMS = 625
"""To measure on: a fifth is dev, which leaves 500."""


def make(out: Path, recipe: Recipe, *, seed: int) -> None:
    """Write all of it to `out`, which must not exist and appears whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        made = Path(scratch, "made")
        for name, train in (("base", train_ancestor), ("target", train_target)):
            base = {} if name == "base" else {"ancestor": made / "base"}
            train(out=made / name, recipe=recipe, seed=seed, advance=lambda step, note: None, **base)
        _write(made / "sums.jsonl", sums(seed, recipe.donor.slip))
        kind = next(kind for kind in KINDS if kind.name == "start")
        # the target's own chat tokens stand in the question, since it is measured without a template's other words
        _write(made / "start.jsonl", [
            {"question": f"{USER} {problem.prompt}{ASSISTANT}", "answer": problem.gold}
            for problem in problems(kind, seed, count=PROBLEMS)
        ])  # fmt: skip
        made.rename(out)


def sums(seed: int, slip: float) -> list[dict[str, str]]:
    """Different questions in signs with worked answers, slips included, and the right answers apart."""
    rows: dict[str, dict[str, str]] = {}
    for document in islice(donor_documents(seed, Habit(slip)), 20 * ROWS):
        value = sum(int(sign + digits) for sign, digits in re.findall(r"([+-]?) ?(\d+)", document.prompt))
        row = {"question": document.prompt, "answer": document.completion, "gold": str(value)}
        rows.setdefault(document.prompt, row)
        if len(rows) == ROWS:
            break
    return list(rows.values())


def _write(file: Path, rows: list[dict[str, str]]) -> None:
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="of both trainings, for a quick look; default: the recipe's")
    given = parser.parse_args(arguments)
    recipe = Recipe()
    if given.steps:
        pretraining, target = replace(recipe.pretraining, steps=given.steps), replace(recipe.target, steps=given.steps)
        recipe = replace(recipe, pretraining=pretraining, target=target)
    make(given.out, recipe, seed=given.seed)


if __name__ == "__main__":
    main(sys.argv[1:])
