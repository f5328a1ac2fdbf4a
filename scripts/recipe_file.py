"""A recipe as it stands in its YAML file: the fields it may have, and a strict reader that names lines.

A key that is unknown, missing, twice there or of another type is an error; all of them are told at once.
"""

import difflib
import math
import typing
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from reasonvec.errors import ReasonvecError
from reasonvec.weights.files import read_small

OPERATORS = ("typo", "surface", "number-format", "shuffle", "shuffle-all", "distract-off", "distract-in", "numbers",
             "compose", "premise")  # fmt: skip


class RecipeError(ReasonvecError):
    """A recipe that cannot be read, or cannot go on."""


@dataclass(frozen=True)
class Trained:
    """Donors that are trained here: SFT from the base, GRPO from the SFT donor, on the same data."""

    base: str
    """The model that both trainings begin with."""
    target: str
    """The model that gets the vector."""
    training_data: str
    """A .jsonl file with question and worked solution."""
    rewards: tuple[str, ...]
    """Of GRPO."""
    sft_config: str
    """A preset or a YAML file of TRL's SFTConfig."""
    grpo_config: str
    sft_set: tuple[str, ...] = ()
    """Changes to the config: field=value."""
    grpo_set: tuple[str, ...] = ()
    launch: str | None = None
    """A config file of `accelerate launch`, for several GPUs."""


@dataclass(frozen=True)
class Public:
    """Donors that somebody else trained."""

    sft: str
    grpo: str
    ancestor: str
    """The model that both came from: tells whether GRPO went on from this SFT donor."""
    target: str


@dataclass(frozen=True)
class Donors:
    """One of the two, or both to choose from."""

    trained: Trained | None = None
    public: Public | None = None


@dataclass(frozen=True)
class Dev:
    """What alpha is chosen on."""

    task: str
    """Its dev part. No task that a donor was trained on: it would speak for a large alpha."""
    alphas: tuple[float, ...]
    """The grid, fixed before anything is run."""


@dataclass(frozen=True)
class Benchmarks:
    """Tasks that are measured alike."""

    tasks: tuple[str, ...]
    max_new_tokens: int = 1024
    samples: int = 1
    temperature: float = 0.0
    limit: int | None = None
    """Problems of each task at most."""


@dataclass(frozen=True)
class Controls:
    """Vectors that carry nothing."""

    task: str
    """The task they are measured on, at the chosen alpha."""
    random: int
    """How many of Gaussian noise; with 19 the largest of all 20 vectors by chance has probability 0.05."""
    permuted: int
    """How many with the reasoning vector's own entries, shuffled in each tensor."""


@dataclass(frozen=True)
class Perturbation:
    """A change of a task's problems."""

    task: str
    operator: str
    severity: int


@dataclass(frozen=True)
class Expect:
    """What it takes: estimates, whose arithmetic stands in the file."""

    machine: str
    hours: dict[str, float]
    """By step."""
    memory_gb: dict[str, float]
    """Of each GPU, by step."""

    def of(self, step: str) -> str:
        """For people; empty where nothing is said."""
        hours, memory = self.hours.get(step), self.memory_gb.get(step)
        parts = [f"some {hours:g} hours" if hours is not None else "", f"{memory:g} GB of GPU memory" if memory else ""]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Recipe:
    """The whole experiment."""

    name: str
    out: str
    """All that is made lies in this directory."""
    data: str
    """Where the benchmarks' files are."""
    donors: Donors
    dev: Dev
    benchmarks: tuple[Benchmarks, ...]
    controls: Controls
    expect: Expect
    perturbations: tuple[Perturbation, ...] = ()
    interpolation: float = 0.5
    """Share of the way from the target to the GRPO donor, a merge baseline."""
    engine: str = "transformers"
    """Or vllm."""
    bare: bool = False
    """Measure without the chat template, as base models are."""
    bare_training: bool = False
    """Train the donors without it."""
    think: bool = True
    """Whether there are arms with "Think step by step.", the donors among them. The lab's models know no such words."""
    prepare: tuple[str, ...] = ()
    """A Python script and its arguments that make models and data where there are none, the last one the new directory
    that they are in."""
    seed: int = 0


def read_recipe(file: Path) -> Recipe:
    """The recipe in a file. Raises RecipeError that lists everything wrong with it, by line."""
    try:
        node = yaml.compose(read_small(file).decode(), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{file} is no YAML: {' '.join(str(error)[:300].split())}") from None
    problems: list[str] = []
    recipe = _read(node, Recipe, "the recipe", problems)
    if not problems:
        problems += _contradictions(recipe)
    if problems:
        raise RecipeError(f"{file} cannot be used:\n" + "\n".join(f"  {problem}" for problem in problems))
    return typing.cast(Recipe, recipe)


def _contradictions(recipe: Recipe) -> list[str]:
    found = []
    if recipe.donors.trained is None and recipe.donors.public is None:
        found.append("donors holds neither `trained` nor `public`")
    if not recipe.dev.alphas or 0 in recipe.dev.alphas:
        found.append("dev.alphas needs one value or more, none of them 0: the target itself is measured anyway")
    if not any(recipe.controls.task in group.tasks for group in recipe.benchmarks):
        found.append(f"controls.task {recipe.controls.task!r} is not among the benchmarks: no arm would stand beside")
    if recipe.engine not in ("transformers", "vllm"):
        found.append(f"engine is {recipe.engine!r}; it is transformers or vllm")
    found += [f"perturbations: there is no operator {change.operator!r}; there are {', '.join(OPERATORS)}"
              for change in recipe.perturbations if change.operator not in OPERATORS]  # fmt: skip
    found += [f"benchmarks: {group.samples} samples of temperature 0 are one and the same; set a temperature"
              for group in recipe.benchmarks if group.samples > 1 and not group.temperature]  # fmt: skip
    tasks = [task for group in recipe.benchmarks for task in group.tasks]
    found += [f"benchmarks: {task} is there twice" for task in sorted({t for t in tasks if tasks.count(t) > 1})]
    return found


def _read(node: Any, kind: Any, place: str, problems: list[str]) -> Any:
    """The value of a YAML node, of the annotated type `kind`; what is wrong is added to `problems`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if is_dataclass(kind):
        return _read_fields(node, kind, place, problems)
    if type(None) in arguments:
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null"):
            return None
        return _read(node, arguments[0], place, problems)
    if origin is tuple:
        if not isinstance(node, yaml.SequenceNode):
            problems.append(f"{_line(node)}: {place} is no list")
            return ()
        return tuple(_read(item, arguments[0], f"{place}[{i}]", problems) for i, item in enumerate(node.value))
    if origin is dict:
        if not isinstance(node, yaml.MappingNode):
            problems.append(f"{_line(node)}: {place} is no map")
            return {}
        return {key.value: _read(value, arguments[1], f"{place}.{key.value}", problems) for key, value in node.value}
    return _read_scalar(node, kind, place, problems)


def _read_fields(node: Any, kind: Any, place: str, problems: list[str]) -> Any:
    if not isinstance(node, yaml.MappingNode):
        problems.append(f"{_line(node)}: {place} is no map of fields")
        return None
    hints = typing.get_type_hints(kind)
    found: dict[str, Any] = {}
    for key, value in node.value:
        name = str(key.value)
        if name in found:
            problems.append(f"{_line(key)}: {name} is there twice")
        elif name not in hints:
            near = difflib.get_close_matches(name, hints, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(hints)}"
            problems.append(f"{_line(key)}: {place} has no field {name!r}{hint}")
        else:
            found[name] = _read(value, hints[name], name if kind is Recipe else f"{place}.{name}", problems)
    missing = [field.name for field in fields(kind) if field.name not in found and field.default is MISSING]
    problems += [f"{_line(node)}: {place} lacks {name}" for name in missing]
    return None if missing else kind(**found)


def _read_scalar(node: Any, kind: Any, place: str, problems: list[str]) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        problems.append(f"{_line(node)}: {place} holds more than one value")
        return kind()
    value = yaml.SafeLoader("").construct_object(node)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    said = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}[kind]
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        problems.append(f"{_line(node)}: {place} is {node.value!r}; it takes {said}")
        return kind()
    if kind is int and value < 0:
        problems.append(f"{_line(node)}: {place} is {value}; it is 0 or more")
    if kind is str and (not value or value.startswith("-") or not value.isprintable()):
        # a name that begins with a hyphen would be read as an option by the command that it is handed to
        problems.append(f"{_line(node)}: {place} is {value!r}, which can name nothing")
    return value


def _line(node: Any) -> str:
    return f"line {node.start_mark.line + 1}" if node is not None else "line 1"
