"""Plausible results, story, vector and provenance for the page, seeded; the shapes of the lab's real numbers."""

from typing import Any

import numpy as np

from reasonvec.evaluation.statistics import paired_difference
from reasonvec.weights.arithmetic import STEP_BINS

PROBLEMS = 500
ALPHAS = (-1.0, -0.5, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)

# percent solved by the target; gain at alpha 1; ancestor, SFT and GRPO donors (the lab's seed 0, rounded)
LEVELS: dict[str, tuple[float, float, float, float, float]] = {
    "sym": (57, 12, 48, 54, 77),
    "start": (53, 17, 45, 50, 68),
    "story": (50, 18, 42, 46, 62),
    "vars": (50, 15, 41, 48, 65),
    "go": (51, 22, 41, 50, 75),
    "shuf": (26, 5, 25, 23, 29),
    "distract": (53, 16, 46, 33, 45),
    "more_steps": (35, 15, 27, 21, 36),
    "big": (38, 10, 35, 27, 34),
    "aux": (61, 0, 55, 55, 55),
}

KINDS: list[dict[str, Any]] = [
    {"name": name, "title": title, "description": description, "example": example,
     "seen_by_donors": name == "sym", "seen_by_target": name in ("start", "story", "aux")}
    for name, title, description, example in (
        ("sym", "Bare sums", "Two or three additions and subtractions, as symbols.", "Q:12+5-8=?"),
        ("start", "Instructions", "The same sums told as instructions.", "start with 12, add 5, take away 8."),
        ("story", "Short stories", "The same sums told as a story.", "Tom has 12. Tom gets 5 more. How many?"),
        ("vars", "Named values", "Each step gives a name to its result.", "a=12; b=a+5; c=b-8; c?"),
        ("go", "A rare phrasing", "Words that were rare in pre-training.", "go from 12 up 5 down 8"),
        ("shuf", "Shuffled sentences", "Named values, in the wrong order.", "c=b-8; a=12; b=a+5; c?"),
        ("distract", "Distracting sentences", "A story with a sentence that does not matter.",
         "Tom has 12. Ann has 7. Tom gets 5 more. How many has Tom?"),
        ("more_steps", "More steps", "Four or five steps; nobody was fine-tuned on more than three.",
         "start with 12, add 5, take away 8, add 9, add 3."),
        ("big", "Larger numbers", "Steps of 10 to 15 instead of 1 to 9.", "start with 12, add 13, take away 11."),
        ("aux", "Other small tasks", "Copying, sorting, comparing: nothing to do with sums.", "sort 5 3 9"),
    )
]  # fmt: skip

STORY: dict[str, Any] = {
    "title": "Can reasoning be moved from one model to another by subtraction?",
    "lead": (
        "One model was trained by reward to get sums right. What that training changed was subtracted out, number by "
        "number, and added to another model that never had it. Everything below was trained and measured in this run."
    ),
    "steps": [
        {"title": "Train one ancestor", "text": "A tiny language model reads sums, stories and lists until it can "
         "write a chain of steps. What it reads contains slips: steps that cross a ten are often off by one.",
         "result": "156,608 weights, 600 steps, 56 s"},
        {"title": "Fine-tune the first donor on examples (SFT)", "text": "It copies worked sums, slips included.",
         "result": "54 of 100 bare sums right"},
        {"title": "Train the second donor by reward (GRPO)", "text": "It starts from the first and is rewarded for "
         "right answers only. It is never shown a right step.", "result": "77 of 100 bare sums right"},
        {"title": "Train the target separately", "text": "Another copy of the ancestor learns to follow instructions, "
         "in its own words and answer format. It keeps the slips.", "result": "53 of 100 instructions right"},
        {"title": "Subtract and add", "text": "v = GRPO donor − SFT donor. The target gets α times v, with no further "
         "training.", "result": "0.9 s"},
        {"title": "Measure all of them on the same held-out problems", "text": "500 of each kind, none of them in any "
         "training text. Random and shuffled vectors of the same size are measured alike.", "result": None},
    ],
    "caveat": (
        "This is a toy world with a planted habit. All models here share one bad habit, put there on purpose: they "
        "miscount when a sum crosses a ten. The vector carries the cure for that habit. That it works here shows the "
        "method at work from end to end; it does not show that it works on large models."
    ),
}  # fmt: skip

PROVENANCE: list[dict[str, Any]] = [
    {"role": role, "name": name, "fingerprint": f"sha256:{number:064x}", "revision": None, "detail": detail}
    for number, (role, name, detail) in enumerate(
        (("tuned", "grpo", "120 steps of GRPO from sft"), ("base", "sft", "150 steps from ancestor"),
         ("target", "target", "250 steps from ancestor"), ("enhanced", "enhanced", "target + 1.0 v, bfloat16")),
        start=0x5F3A9C71D24E,
    )
]  # fmt: skip


def sample_results(*, seed: int = 0, strength: float = 1.0, control_strength: float = 0.0) -> dict[str, Any]:
    """Results of an imagined demo; `strength` scales the vector's effect, `control_strength` that of the controls."""
    generator = np.random.default_rng(seed)
    arms: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    for kind, levels in LEVELS.items():
        difficulty = generator.uniform(0, 100, PROBLEMS)
        outcomes = {
            arm: [bool(solved) for solved in difficulty + generator.normal(0, 9, PROBLEMS) < level]
            for arm, level in _levels(levels, strength, control_strength).items()
        }
        for arm, solved in outcomes.items():
            alpha, group = _placed(arm)
            entry = {"arm": arm, "kind": kind, "n": PROBLEMS, "correct": sum(solved), "alpha": alpha, "group": group}
            arms.append({**entry, "answered": PROBLEMS - 2, "finished": PROBLEMS - 4})
            if group in ("sweep", "control"):
                differences.append(_difference(arm, "target", kind, solved, outcomes["target"]))
        differences.append(_difference("grpo", "sft", kind, outcomes["grpo"], outcomes["sft"]))
    return {
        "arms": arms, "differences": differences, "kinds": KINDS, "examples": EXAMPLES, "seconds": 243.4, "seed": seed,
        "stages": {"pre-train the ancestor": 56.2, "SFT donor": 20.4, "GRPO donor": 98.0, "target": 27.9,
                   "extract and apply": 0.9, "evaluate": 37.1, "report": 2.9},
        "versions": {"reasonvec": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "trl": "1.16.0"},
    }  # fmt: skip


def sample_vector(*, layers: int = 3, seed: int = 0) -> dict[str, Any]:
    """What `reasonvec inspect --json` would say of a vector of a small Qwen2."""
    generator = np.random.default_rng(seed)
    shapes = {"q": [64, 64], "k": [32, 64], "v": [32, 64], "o": [64, 64], "gate": [192, 64], "up": [192, 64],
              "down": [64, 192], "norm": [64]}  # fmt: skip
    tensors = [_tensor("model.embed_tokens.weight", None, "embedding", [130, 64], generator)]
    tensors += [
        _tensor(f"model.layers.{layer}.{kind}.weight", layer, kind, shape, generator)
        for layer in range(layers) for kind, shape in shapes.items()
    ]  # fmt: skip
    tensors.append(_tensor("model.norm.weight", None, "norm", [64], generator))
    return {
        "name": "vector", **_pooled(tensors), "tensors_count": len(tensors), "tensors": tensors,
        "layers": [{"layer": n, **_pooled([t for t in tensors if t["layer"] == n])} for n in (None, *range(layers))],
        "kinds": [{"kind": k, **_pooled([t for t in tensors if t["kind"] == k])} for k in ("embedding", *shapes)],
    }  # fmt: skip


EXAMPLES: list[dict[str, Any]] = [
    {"kind": "start", "problem": "start with 12, add 5, take away 8.\nanswer:", "gold": "9",
     "completions": {"target": "12+5=17-8=8 so 8", "target+1.0v": "12+5=17-8=9 so 9", "sft": "12+5=17-8=8#8",
                     "grpo": "12+5=17-8=9#9", "ancestor": "12+5=17-8=8 so 8"},
     "correct": {"target": False, "target+1.0v": True, "sft": False, "grpo": True, "ancestor": False}},
    {"kind": "story", "problem": "Tom has 27. Tom gets 6 more. Tom loses 4. How many?\nreply:", "gold": "29",
     "completions": {"target": "27+6=34-4=30 so 30", "target+1.0v": "27+6=33-4=29 so 29"},
     "correct": {"target": False, "target+1.0v": True}},
    {"kind": "big", "problem": "start with 9, add 13, take away 11.\nanswer:", "gold": "11",
     "completions": {"target": "9+13=22-11=11 so 11", "target+1.0v": "9+13=21-11=10 so 10"},
     "correct": {"target": True, "target+1.0v": False}},
    {"kind": "more_steps", "problem": "start with 8, add 5, add 9, take away 3, add 6.\nanswer:", "gold": "25",
     "completions": {"target": "8+5=14+9=23-3=20+6=26 so 26", "target+1.0v": "8+5=13+9=22-3=19+6=25 so 25"},
     "correct": {"target": False, "target+1.0v": True}},
]  # fmt: skip


def _levels(levels: tuple[float, ...], strength: float, control_strength: float) -> dict[str, float]:
    target, gain, ancestor, sft, grpo = levels
    sweep = {f"target{alpha:+}v": target + strength * gain * _shape(alpha) for alpha in ALPHAS}
    controls = dict.fromkeys(("random-1", "random-2", "random-3", "permuted"), target + control_strength * gain)
    return {"ancestor": ancestor, "sft": sft, "grpo": grpo, "target": target, **sweep, **controls}


def _shape(alpha: float) -> float:
    """The lab's curve: down on the left, a broad top near 1, back to nothing at 2."""
    return float(
        np.interp(
            alpha, (-1, -0.5, 0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2), (-0.9, -0.6, 0, 0.5, 0.8, 1, 1, 0.8, 0.45, -0.15)
        )
    )


def _placed(arm: str) -> tuple[float | None, str]:
    if arm.startswith("target"):
        return (0.0, "target") if arm == "target" else (float(arm.removeprefix("target").removesuffix("v")), "sweep")
    return (None, "control") if arm.startswith(("random", "permuted")) else (None, "donor")


def _difference(arm: str, baseline: str, kind: str, solved: list[bool], before: list[bool]) -> dict[str, Any]:
    d = paired_difference(solved, before)
    return {
        "arm": arm,
        "baseline": baseline,
        "kind": kind,
        "n": d.n,
        "points": d.points,
        "low": d.low,
        "high": d.high,
        "p": d.p,
        "detectable": d.detectable,
        "answered_p": 1.0,
        "answered_by_both": d.points,
    }


def _tensor(
    name: str, layer: int | None, kind: str, shape: list[int], generator: np.random.Generator
) -> dict[str, Any]:
    parameters = int(np.prod(shape))
    relative = float(0.006 * generator.uniform(0.7, 1.3) * (0.1 if kind == "norm" else 1))
    unchanged = float(generator.uniform(0.2, 0.35))
    moved = parameters - round(parameters * unchanged)
    counts = [parameters - moved, *(moved // 2**power for power in range(1, 10))]
    return {
        "name": name, "layer": layer, "kind": kind, "shape": shape, "dtype": "bfloat16", "parameters": parameters,
        "norm": relative * 0.1 * parameters**0.5, "relative_norm": relative, "unchanged_share": unchanged,
        "steps": {"bins": list(STEP_BINS), "counts": counts},
        "energy": {"1": 0.24, "4": 0.6, "16": 0.92} if len(shape) == 2 else None,
    }  # fmt: skip


def _pooled(tensors: list[dict[str, Any]]) -> dict[str, Any]:
    parameters = sum(t["parameters"] for t in tensors)
    norm = sum(t["norm"] ** 2 for t in tensors) ** 0.5
    weights = sum((t["norm"] / t["relative_norm"]) ** 2 for t in tensors) ** 0.5
    unchanged = sum(t["unchanged_share"] * t["parameters"] for t in tensors) / parameters
    return {"parameters": parameters, "norm": norm, "relative_norm": norm / weights, "unchanged_share": unchanged}
