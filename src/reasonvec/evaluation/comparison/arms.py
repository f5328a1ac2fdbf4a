"""Runs as arms: what run.json says of each, checked, and which problems it was measured on. Compares nothing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

from reasonvec.errors import RunError
from reasonvec.evaluation.runs import Outcome, Run

_NUMBER = (int, float)
_OF_BENCHMARK = ("example", "stop")
"""In run.json's `prompt`: a prompt as the model got it, and where its answer to this benchmark ends."""


@dataclass(frozen=True)
class Setting:
    """The problems that arms are measured on: all runs of one setting stand beside each other."""

    task: str
    """Of the benchmark; for a perturbed file of the one that it was made of."""
    part: str | None
    """dev or test; None for all of it."""
    operator: str | None
    """Of the perturbation; None for problems as they are."""
    severity: int | None
    seed: int | None

    @property
    def title(self) -> str:
        part = f" ({self.part})" if self.part else ""
        changed = f", {self.operator}, severity {self.severity}, seed {self.seed}" if self.operator else ""
        return f"{self.task}{part}{changed}"

    @property
    def changed(self) -> bool:
        """Whether the problems differ from the benchmark's own; severity 0 leaves them as they are."""
        return self.operator is not None and self.severity != 0

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "part": self.part,
            "operator": self.operator,
            "severity": self.severity,
            "seed": self.seed,
        }


@dataclass(frozen=True, eq=False)
class Arm:
    """One run as a side of a comparison; each is equal to itself alone, whatever it holds."""

    run: Run
    name: str
    """What tells the run's directory from those of the other runs in its setting."""
    checkpoint: str
    target: str
    """What the vector was added to: the checkpoint, or what the checkpoint was written from."""
    vector: str | None
    alpha: float | None
    control: str | None
    """`random` or `permuted` for a vector that carries nothing; None for a real one, and for none."""
    prompt: str
    setting: Setting

    @cached_property
    def model(self) -> str:
        """All that run.json says of checkpoint and vector: the same for two runs of one model."""
        return json.dumps(self.run.configuration["arm"], sort_keys=True)

    @cached_property
    def wording(self) -> str:
        """All that run.json says of the prompt, but for what follows from the benchmark."""
        prompt = self.run.configuration["prompt"]
        return json.dumps({name: prompt[name] for name in prompt if name not in _OF_BENCHMARK}, sort_keys=True)

    @property
    def asked(self) -> str:
        """The prompt's name, and what of `wording` that name does not say: --bare, --placement system."""
        prompt = self.run.configuration["prompt"]
        words = prompt.get("instruction")
        name = f'"{words}"' if self.prompt == "custom" and isinstance(words, str) else self.prompt
        bare = prompt.get("chat_template") is False and not self.unprompted
        system = prompt.get("placement") == "system"
        return f"{name}{', bare' * bare}{', system' * system}"

    @property
    def plain(self) -> bool:
        """Whether nothing was added to the question."""
        return self.prompt == "plain" or self.unprompted

    @property
    def unprompted(self) -> bool:
        """Whether options were compared by their likelihood, for which all prompts are one."""
        return self.prompt == "log-likelihood"

    @property
    def bare(self) -> bool:
        """Whether nothing was added to the checkpoint."""
        return self.vector is None or self.alpha == 0

    @property
    def applied(self) -> tuple[int, int] | None:
        """To how many problems of how many the operator applies that changed these; None where nothing was changed."""
        return applied(self.run.benchmark.get("perturbation"))

    @property
    def problems(self) -> Mapping[str, tuple[Outcome, ...]]:
        return self.run.by_id

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "run": str(self.run.path),
            "checkpoint": self.checkpoint,
            "vector": self.vector,
            "alpha": self.alpha,
            "control": self.control,
            "prompt": self.prompt,
        }


def applied(header: object) -> tuple[int, int] | None:
    """What the header of a perturbed file says of the problems that it holds and of all that there were."""
    if not isinstance(header, Mapping) or header.get("severity") == 0:
        return None
    some, all_ = header.get("applied"), header.get("problems")
    return (some, all_) if type(some) is int and type(all_) is int and 0 < some <= all_ else None


def read_arms(runs: Sequence[Run]) -> list[Arm]:
    """The runs as arms, in their order. Raises RunError where run.json lacks what a comparison needs."""
    settings = [_setting(run) for run in runs]
    members: dict[Setting, list[Run]] = {}
    for run, setting in zip(runs, settings, strict=True):
        members.setdefault(setting, []).append(run)
    names = {run.path: name for found in members.values() for run, name in zip(found, _names(found), strict=True)}
    return [_arm(run, setting, names[run.path]) for run, setting in zip(runs, settings, strict=True)]


def _names(runs: Sequence[Run]) -> list[str]:
    """Their directories without what all have in common, in front and, as of target/gsm8k and vector/gsm8k, behind."""
    if len(runs) == 1:
        return [runs[0].name]
    paths = [run.path.resolve().parts for run in runs]
    paths = [path[_alike(paths) :] for path in paths]
    behind = _alike([path[::-1] for path in paths])
    return ["/".join(path[: len(path) - behind]) for path in paths]


def _alike(paths: Sequence[Sequence[str]]) -> int:
    """How many parts all paths begin with, so that one part of each is left at least."""
    count = 0
    while all(len(path) > count + 1 for path in paths) and len({path[count] for path in paths}) == 1:
        count += 1
    return count


def _arm(run: Run, setting: Setting, name: str) -> Arm:
    alpha = _field(run, "arm", "alpha", _NUMBER, optional=True)
    checkpoint = _field(run, "arm", "checkpoint", str)
    return Arm(
        run=run,
        name=name,
        checkpoint=checkpoint,
        target=_field(run, "arm", "target", str, optional=True) or checkpoint,
        vector=_field(run, "arm", "vector", str, optional=True),
        alpha=None if alpha is None else float(alpha),
        control=_field(run, "arm", "control", str, optional=True),
        prompt=_field(run, "prompt", "name", str),
        setting=setting,
    )


def _setting(run: Run) -> Setting:
    split = _field(run, "benchmark", "split", dict, optional=True) or {}
    header = _field(run, "benchmark", "perturbation", dict, optional=True) or {}
    task = _field(run, "benchmark", "task", str)
    name, own, variant = task.rpartition(".jsonl")
    if own:  # a file is named without its directories; one of changed problems by what it was made of
        task = f"{_origin(header) or f'{PurePath(name).name}.jsonl'}{variant}"
    for name, kind in (("operator", str), ("severity", int), ("seed", int)):
        if header and not isinstance(header.get(name), kind):
            raise _damaged(run, f"benchmark.perturbation.{name}", header.get(name))
    if split and not isinstance(split.get("part"), str):
        raise _damaged(run, "benchmark.split.part", split.get("part"))
    return Setting(
        task=task,
        part=None if split.get("part") == "all" else split.get("part"),
        operator=header.get("operator"),
        severity=header.get("severity"),
        seed=header.get("seed"),
    )


def _origin(header: Mapping[str, Any]) -> str | None:
    """What changed problems were made of: a benchmark's name, or a file of one's own, which is recorded by its stem."""
    origin = header.get("benchmark")
    if not isinstance(origin, dict) or not isinstance(origin.get("task"), str):
        return None
    file = f"{origin['task']}.jsonl"
    files = origin.get("files")
    return file if isinstance(files, dict) and file in files else str(origin["task"])


def _field(run: Run, section: str, name: str, kind: Any, *, optional: bool = False) -> Any:
    value = run.configuration[section].get(name)
    if value is None and optional:
        return None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _damaged(run, f"{section}.{name}", value)
    return value


def _damaged(run: Run, name: str, value: Any) -> RunError:
    return RunError(f"{run.path / 'run.json'} is damaged: `{name}` is {json.dumps(value)[:80]}. Measure again.")
