"""Every input that once was a finding, and every seed, once through its target. Needs no atheris; `make fuzz` does."""

import contextlib
from pathlib import Path

import pytest

import fuzz
from fuzz.mutation import mutated
from fuzz.pieces import cut, join
from fuzz.targets import TARGETS
from fuzz.watch import MAX_EXTRA_BYTES, attempt
from reasonvec.errors import ReasonvecError

REGRESSIONS = Path(fuzz.__file__).parent / "regressions"
STORIES = dict(line.split(None, 1) for line in (REGRESSIONS / "findings.txt").read_text().splitlines())
INPUTS = sorted(path for path in REGRESSIONS.iterdir() if path.name != "findings.txt")
VALID = {
    "block": ("none", "none-signed", "few", "few-signed", "many", "many-signed"),
    "json": ("object", "spaces", "commas", "texts", "many", "nan", "deep", "half", "mark"),
    "header": ("two", "raw"),
    "checkpoint": ("one", "two", "no-config", "small-files"),
    "tokenizer": (
        "equal",
        "older",
        "moved",
        "unigram",
        "vocab",
        "words",
        "configurations",
        "one-side",
        "nothing",
        "surrogate",
        "large-id",
        "no-map",
        "no-tokens",
    ),
    "document": ("transfer", "apply", "every", "checkpoint", "surrogate"),
    "vector": ("whole", "sparse", "low-rank", "bits-8", "bits-4", "bits-1", "unsigned", "signed", "folder-in-donor"),
    "verify": ("vector", "enhanced", "folder", "relation", "control"),
}


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.name)
def test_what_was_found_once_is_answered(path, tmp_path):
    error = attempt(TARGETS[path.name.partition("-")[0]], path.read_bytes(), tmp_path, traced=True)
    assert error is None, STORIES[path.name]


def test_every_regression_says_what_it_was():
    assert STORIES.keys() == {path.name for path in INPUTS}


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_is_answered(name, tmp_path):
    seeds = TARGETS[name].seeds()
    assert seeds == TARGETS[name].seeds(), "seeds are the same each time"
    for label, data in seeds.items():
        error = attempt(TARGETS[name], data, tmp_path, traced=True)
        assert error is None, label
        with contextlib.nullcontext() if label in VALID[name] else pytest.raises(ReasonvecError):
            TARGETS[name].run(data, tmp_path)
    assert not list(tmp_path.iterdir()), "an input left nothing behind"


@pytest.mark.parametrize("name", TARGETS)
def test_some_mutations_of_every_seed_are_answered(name, tmp_path):
    for label, data in TARGETS[name].seeds().items():
        for seed in range(20):
            changed = mutated(data, 8192, seed, lambda data, most: data[: len(data) // 2])
            assert changed == mutated(data, 8192, seed, lambda data, most: data[: len(data) // 2])
            error = attempt(TARGETS[name], changed, tmp_path)
            assert error is None, (label, seed)


def test_an_input_is_its_pieces():
    for target in TARGETS.values():
        for data in target.seeds().values():
            if data:
                assert join(cut(data)) == data


class Greedy:
    """A reader that is wrong in one way."""

    def __init__(self, act):
        self.run = lambda data, directory: act()


@pytest.mark.parametrize(
    ("act", "traced", "wanted"),
    [
        (lambda: 1 / 0, False, ZeroDivisionError),
        (lambda: bytearray(2 * MAX_EXTRA_BYTES), False, MemoryError),
        (lambda: [bytearray(1 << 20) for _ in range(120)], True, MemoryError),
        (lambda: bytearray(MAX_EXTRA_BYTES // 2), True, None),
    ],
)
def test_the_watch_sees_other_exceptions_and_too_much_memory(act, traced, wanted, tmp_path):
    error = attempt(Greedy(act), b"", tmp_path, traced=traced)
    assert type(error) is (wanted or type(None))
