"""Run the demo on five seeds, one after the other, and write what came out into docs/lab.md, failures included.

The seeds and what counts as success are fixed here, before the runs. `--reuse` only rewrites the table from the runs
that lie in `--out` already.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SEEDS = (100, 101, 102, 103, 104)
"""Used for nothing else; the recipe was tuned on seeds 0 to 2."""
DOCUMENT = Path(__file__).parent.parent / "docs" / "lab.md"
BEGIN, END = "<!-- seeds: written by benchmarks/lab_seeds.py -->", "<!-- end of seeds -->"
CONTROLS = ("random-1", "random-2", "random-3", "permuted")
SIGNIFICANT = 0.01

Results = Mapping[str, Any]


def main() -> int:
    """Run, write the table, and exit with 1 if any seed failed to show the effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/lab-seeds"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--reuse", action="store_true", help="train nothing, only rewrite the table")
    arguments = parser.parse_args()
    if not arguments.reuse:
        for seed in arguments.seeds:
            run(arguments.out / str(seed), seed)
    results = [json.loads((arguments.out / str(seed) / "results.json").read_text()) for seed in arguments.seeds]
    write(DOCUMENT, table(results))
    return 0 if all(shows(each) for each in results) else 1


def run(out: Path, seed: int) -> None:
    """One demo in a process of its own."""
    print(f"seed {seed}", file=sys.stderr, flush=True)
    code = f"from pathlib import Path; from reasonvec.lab.demo import demo; demo(Path({str(out)!r}), {seed})"
    subprocess.run([sys.executable, "-c", f"if __name__ == '__main__':\n    {code}"], check=True)


def shows(results: Results) -> bool:
    """Whether a run shows the effect, on the target's own instructions.

    A gain at alpha 1 and a loss at alpha -1, each with exact McNemar p below 0.01, and no meaningless vector that
    moves the target by as much as 5 points.
    """
    gain, loss = difference(results, "target+1.0v"), difference(results, "target-1.0v")
    return (
        gain["points"] > 0
        and gain["p"] < SIGNIFICANT
        and loss["points"] < 0
        and loss["p"] < SIGNIFICANT
        and all(abs(difference(results, name)["points"]) < 5 for name in CONTROLS)
    )


def table(runs: Sequence[Results]) -> str:
    """The two tables, as Markdown."""
    lines = [
        f"{sum(map(shows, runs))} of {len(runs)} seeds show the effect. Percent right on `start`, in brackets on "
        "`symbols`; differences in points against the target, with 95 % interval and exact McNemar p; 500 problems. "
        "Seconds: the whole demo, after its imports.",
        "",
        "| seed | ancestor | SFT donor | GRPO donor | target | +0.5v | +1v | −1v | gain at 1 | p | change at −1 | p "
        "| controls | seconds | shows it |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        *(row(results) for results in runs),
        "",
        "Change at alpha 1 by kind of problem, in points (p):",
        "",
        "| kind | " + " | ".join(f"seed {results['seed']}" for results in runs) + " |",
        "|---|" + "---|" * len(runs),
    ]
    for kind in runs[0]["kinds"]:
        found = [difference(results, "target+1.0v", kind["name"]) for results in runs]
        cells = " | ".join(f"{each['points']:+.1f} ({each['p']:.0e})" for each in found)
        lines.append(f"| {kind['title']} (`{kind['name']}`) | {cells} |")
    return "\n".join(lines)


def row(results: Results) -> str:
    """One seed."""
    gain, loss = difference(results, "target+1.0v"), difference(results, "target-1.0v")
    controls = [difference(results, name)["points"] for name in CONTROLS]
    donors = [f"{percent(results, arm)} ({percent(results, arm, 'symbols')})" for arm in ("ancestor", "sft", "grpo")]
    cells = [
        str(results["seed"]),
        *donors,
        *(percent(results, arm) for arm in ("target", "target+0.5v", "target+1.0v", "target-1.0v")),
        f"**{gain['points']:+.1f}** ({gain['low']:+.1f} to {gain['high']:+.1f})",
        f"{gain['p']:.0e}",
        f"{loss['points']:+.1f} ({loss['low']:+.1f} to {loss['high']:+.1f})",
        f"{loss['p']:.0e}",
        f"{min(controls):+.1f} to {max(controls):+.1f}",
        f"{results['seconds']:.0f}",
        "yes" if shows(results) else "**no**",
    ]
    return f"| {' | '.join(cells)} |"


def difference(results: Results, arm: str, kind: str = "start") -> Mapping[str, Any]:
    """An arm against the target."""
    return next(
        entry
        for entry in results["differences"]
        if (entry["arm"], entry["baseline"], entry["kind"]) == (arm, "target", kind)
    )


def percent(results: Results, arm: str, kind: str = "start") -> str:
    """Percent right."""
    entry = next(entry for entry in results["arms"] if (entry["arm"], entry["kind"]) == (arm, kind))
    return f"{100 * entry['correct'] / entry['n']:.1f}"


def write(document: Path, text: str) -> None:
    """Replace what stands between the two marks."""
    before, _, rest = document.read_text().partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{document} has lost its marks {BEGIN} and {END}; the table has no place. Put them back.")
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


if __name__ == "__main__":
    raise SystemExit(main())
