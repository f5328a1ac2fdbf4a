"""Runs made by hand, written as `reasonvec evaluate` writes them, so that a test's oracle can be read off its lines."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reasonvec.evaluation.runs import Outcome, load_run, open_run
from reasonvec.evaluation.runs.record import Run

PLAIN = {"name": "plain", "instruction": None, "placement": "user", "chat_template": True}
THINK = PLAIN | {"name": "think", "instruction": "Think step by step."}


BASELINE = [True] * 60 + [False] * 40
"""Verdicts of a baseline on 100 problems."""


def configuration(
    *,
    vector: str | None = None,
    alpha: float | None = None,
    checkpoint: str = "target",
    control: str | None = None,
    prompt: Mapping[str, Any] = PLAIN,
    task: str = "gsm8k",
    problems: int = 8,
    problems_sha256: str = "0" * 64,
    **other: Mapping[str, Any],
) -> dict[str, Any]:
    """What run.json holds; `other` replaces fields of benchmark, sampling or engine."""
    made: dict[str, Any] = {
        "format": "reasonvec run", "format_version": 1, "reasonvec": "0.1.0",
        "arm": {"checkpoint": checkpoint, "vector": vector, "alpha": alpha, "control": control},
        "benchmark": {"task": task, "problems": problems, "problems_sha256": problems_sha256, "files": {},
                      "licences": ["MIT"], "split": {"part": "test", "rule": "all are test"}, "limit": None,
                      "perturbation": None},
        "prompt": {**prompt, "stop": [], "example": {"id": "p0", "text": f"a problem of {task}"}},
        "sampling": {"samples": 1, "temperature": 0.0, "seed": 0, "max_new_tokens": 1024},
        "engine": {"name": "transformers", "dtype": "float32", "device": "cpu", "batch_size": 8, "versions": {}},
        "contamination": None,
    }  # fmt: skip
    for name, fields in other.items():
        made[name] = {**(made[name] or {}), **fields}
    return made


def outcome(id: str, correct: bool, **fields: Any) -> Outcome:
    """One completion that ended by itself and holds an answer, unless told otherwise."""
    given: dict[str, Any] = {
        "task": "gsm8k", "sample": 0, "completion": "so 4", "tokens": 10, "finished": True, "extracted": "4",
        "prompt_sha256": hashlib.sha256(id.encode()).hexdigest(), **fields,
    }  # fmt: skip
    return Outcome(id=id, correct=correct, **given)


def outcomes(verdicts: Sequence[bool], **fields: Any) -> list[Outcome]:
    """One outcome a problem: p0, p1, ..."""
    return [outcome(f"p{number}", verdict, **fields) for number, verdict in enumerate(verdicts)]


def flipped(verdicts: Sequence[bool], *, gained: int, lost: int) -> list[bool]:
    """The first `lost` right ones wrong, and the last `gained` wrong ones right."""
    right = [place for place, verdict in enumerate(verdicts) if verdict][:lost]
    wrong = [place for place, verdict in enumerate(verdicts) if not verdict]
    wrong = wrong[len(wrong) - gained :]
    return [verdict != (place in right or place in wrong) for place, verdict in enumerate(verdicts)]


def perturbed(operator: str, severity: int = 1, **more: Any) -> dict[str, Any]:
    """What run.json says of a benchmark that `perturb` made of GSM8K; `more` stands in its header, too."""
    header = {"operator": operator, "severity": severity, "seed": 0, "benchmark": {"task": "gsm8k"}}
    return {"task": f"{operator}.jsonl", "perturbation": {**header, **more}}


def write_run(path: Path, answers: Sequence[Outcome | bool], *, complete: bool = True, **configured: Any) -> Run:
    """Write a run and read it back; bare verdicts become outcomes of p0, p1, ..."""
    found = [one if isinstance(one, Outcome) else outcome(f"p{n}", one) for n, one in enumerate(answers)]
    configured.setdefault("problems", len({one.id for one in found}))
    samples = max((one.sample for one in found), default=0) + 1
    configured["sampling"] = {"samples": samples, **configured.get("sampling", {})}
    with open_run(path, configuration(**configured), resume=False) as recorder:
        recorder.append(found)
        if complete:
            recorder.finish({})
    return load_run(path)
