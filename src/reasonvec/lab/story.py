"""What the demo tells a newcomer: the report's story, the checkpoints' provenance, the last lines printed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

Results = Mapping[str, Any]


def story(results: Results) -> dict[str, Any]:
    """The report's words around the numbers; results of single stages are filled in from `results`."""
    recipe = results["recipe"]
    return {
        "title": "Can what one model learned by reward be handed to another by addition?",
        "lead": (
            "A tiny language model was trained by reward to get sums right. What that training changed in its numbers "
            "was subtracted out as a vector, and added to another model that never had that training. Everything on "
            "this page was trained and measured in this one run, on this computer, from nothing."
        ),
        "steps": [
            {
                "title": "Train one ancestor, with a bad habit",
                "text": (
                    "A model with some 170 thousand weights learns to read questions and to write out sums. The texts "
                    "carry a bad habit on purpose: where a sum crosses a ten (8 + 5), the written result is one too "
                    f"far in {recipe['pretraining']['slip']:.0%} of the cases (8 + 5 = 14)."
                ),
                "result": f"{_of(results, 'ancestor', 'symbols')} of sums in signs right",
            },
            {
                "title": "Train the first donor on examples (SFT)",
                "text": "It continues from the ancestor with worked sums in signs. The examples still carry the habit.",
                "result": f"{_of(results, 'sft', 'symbols')} of sums in signs right",
            },
            {
                "title": "Train the second donor by reward (GRPO)",
                "text": (
                    "It continues from the first donor. It writes answers of its own and is rewarded when the last "
                    "number is right. It is never shown a right step."
                ),
                "result": f"{_of(results, 'grpo', 'symbols')} of sums in signs right",
            },
            {
                "title": "Train the target, separately",
                "text": (
                    "It continues from the ancestor too, but learns to chat: instructions and stories, answered in "
                    "words. It keeps the habit. It never meets the donors, nor their way of asking."
                ),
                "result": f"{_of(results, 'target', 'start')} of instructions right",
            },
            {
                "title": "Subtract and add",
                "text": (
                    "vector = GRPO donor − SFT donor, number by number. The target gets the vector added, with no "
                    "training at all. For comparison it also gets random vectors and a shuffled one of the same size."
                ),
                "result": f"{_of(results, 'target+1.0v', 'start')} of instructions right with the vector",
            },
            {
                "title": "Measure everyone on the same problems",
                "text": (
                    "Problems that no training text contains (one in seven of all there are is kept aside), the same "
                    "ones for every model, so that each comparison is problem by problem."
                ),
                "result": f"{_problems(results)} problems, {len({arm['arm'] for arm in results['arms']})} models",
            },
        ],
        "caveat": (
            "This is a toy world with a planted habit. Donors and target share one bad habit, put into their texts on "
            "purpose, and what the vector carries is mostly its undoing. The page shows that the method works from end "
            "to end and that a small vector can carry a skill; it does not show that it works on large models."
        ),
    }


def provenance(vector: Results) -> list[dict[str, Any]]:
    """The checkpoints behind the page, with the fingerprints that the vector's document holds."""
    donors = vector.get("donors") or {}
    details = {"tuned": "the GRPO donor", "base": "the SFT donor, which GRPO started from"}
    return [
        {
            "role": role,
            "name": Path(str(donors[role].get("location", role))).name,
            "fingerprint": donors[role].get("fingerprint"),
            "revision": donors[role].get("revision"),
            "detail": detail,
        }
        for role, detail in details.items()
        if role in donors
    ]


def summary(results: Results, out: Path) -> str:
    """The last lines: what came out, in plain words, and where the report is."""
    lines = ["", f"On {_count(results)} held-out problems of each kind, in percent right:", ""]
    shown = [("start", "instructions"), ("story", "stories"), ("symbols", "sums in signs")]
    lines.append(f"  {'':28}" + "".join(f"{title:>16}" for _, title in shown))
    labels = {
        "target": "the target",
        "target+1.0v": "with the vector added",
        "target-1.0v": "with it subtracted",
        "random-1": "with a random one added",
        "permuted": "with it shuffled",
    }
    for arm, label in labels.items():
        lines.append(f"  {label:28}" + "".join(f"{_of(results, arm, kind):>16}" for kind, _ in shown))
    gain = _difference(results, "target+1.0v", "start")
    lines += [
        "",
        f"Vector added, instructions: {gain['points']:+.1f} points (95 % interval {gain['low']:+.1f} to "
        f"{gain['high']:+.1f}), exact McNemar p = {gain['p']:.1g}.",
        "A toy world with a planted habit: it shows the method at work, not that it works on large models.",
        "",
        f"The report: {out / 'report.html'}",
    ]
    return "\n".join(lines)


def _of(results: Results, arm: str, kind: str) -> str:
    """Percent right."""
    entry = next(entry for entry in results["arms"] if entry["arm"] == arm and entry["kind"] == kind)
    return f"{100 * entry['correct'] / entry['n']:.1f} %"


def _difference(results: Results, arm: str, kind: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(
        entry
        for entry in results["differences"]
        if entry["arm"] == arm and entry["kind"] == kind and entry["baseline"] == "target"
    )
    return found


def _count(results: Results) -> int:
    return int(results["arms"][0]["n"])


def _problems(results: Results) -> int:
    first = results["arms"][0]["arm"]
    return sum(entry["n"] for entry in results["arms"] if entry["arm"] == first and entry["kind"] != "all")
