"""Dev and test: whatever the order of the problems, and as recorded."""

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonvec.errors import UsageError
from reasonvec.evaluation.benchmarks import BenchmarkProblem, chosen, split_problems

PROBLEMS = [BenchmarkProblem(f"{task}/{place}", task, "Q", "1", "number") for task in ("a", "b") for place in range(30)]


@given(st.integers(), st.integers(0, 29), st.randoms())
def test_the_order_of_the_problems_does_not_matter(seed, dev, generator):
    shuffled = generator.sample(PROBLEMS, len(PROBLEMS))
    assert split_problems(PROBLEMS, seed=seed, dev_per_task=dev) == split_problems(
        shuffled, seed=seed, dev_per_task=dev
    )


def test_dev_and_test_are_all_problems_and_share_none():
    split = split_problems(PROBLEMS, seed=3, dev_per_task=10)
    assert sorted(split.dev + split.test) == sorted(problem.id for problem in PROBLEMS)
    assert {name[0]: sum(other[0] == name[0] for other in split.dev) for name in split.dev} == {"a": 10, "b": 10}
    assert [problem.id for problem in chosen(PROBLEMS, split.dev)] == [p.id for p in PROBLEMS if p.id in split.dev]


def test_a_larger_dev_part_holds_the_smaller_one():
    small, large = (split_problems(PROBLEMS, seed=3, dev_per_task=dev) for dev in (5, 20))
    assert set(small.dev) < set(large.dev)


def test_another_seed_is_another_split():
    dev = {split_problems(PROBLEMS, seed=seed, dev_per_task=10).dev for seed in range(20)}
    assert len(dev) == 20


def test_the_rule_is_pinned():
    split = split_problems(PROBLEMS, seed=0, dev_per_task=2)
    by_hand = []
    for task in ("a", "b"):
        names = [f"{task}/{place}" for place in range(30)]
        by_hand += sorted(names, key=lambda name: hashlib.blake2b(
            f"lowest-blake2b-per-task/1/0/{name}".encode(), digest_size=16).digest())[:2]  # fmt: skip
    assert list(split.dev) == sorted(by_hand)
    assert split.to_json() == {
        "rule": "lowest-blake2b-per-task", "rule_version": 1, "seed": 0, "dev_per_task": 2, "dev": 4, "test": 56,
        "dev_sha256": hashlib.sha256("\n".join(sorted(by_hand)).encode()).hexdigest(),
    }  # fmt: skip


def test_every_problem_is_dev_about_as_often():
    counts = dict.fromkeys((problem.id for problem in PROBLEMS), 0)
    for seed in range(600):
        for name in split_problems(PROBLEMS, seed=seed, dev_per_task=15).dev:
            counts[name] += 1
    assert all(300 - 5 * 12.3 < count < 300 + 5 * 12.3 for count in counts.values())  # binomial(600, 1/2), 5 sigma


@pytest.mark.parametrize(("dev", "message"), [(30, "a has 30 problems and 30 of each task are to be dev"),
                                              (-1, "-1 problems cannot be dev")])  # fmt: skip
def test_a_split_that_leaves_nothing_is_refused(dev, message):
    with pytest.raises(UsageError, match=message):
        split_problems(random.Random(0).sample(PROBLEMS, 60), seed=0, dev_per_task=dev)
