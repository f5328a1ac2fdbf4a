"""dev and test: a rule of ids alone, so that nothing alpha was chosen on confirms it."""

import json

import pytest

from reasonvec.errors import UsageError
from reasonvec.evaluation.benchmarks import load_benchmark
from reasonvec.evaluation.perturbations import perturb
from reasonvec.evaluation.selection import select
from tests.evaluation.word_problems import real_data


def own(tmp_path, count=30, name="mine", order=1):
    file = tmp_path / f"{name}.jsonl"
    rows = [{"id": f"q{n}", "question": f"What is {n} + 4?", "answer": str(n + 4)} for n in range(count)][::order]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_benchmark(str(file), data=tmp_path)


def ids(benchmark, part, tmp_path, limit=None):
    return [problem.id for problem in select(benchmark, part=part, limit=limit, data=tmp_path)[1].problems]


def test_dev_and_test_share_nothing_and_are_all(tmp_path):
    benchmark = own(tmp_path)
    dev, test = ids(benchmark, "dev", tmp_path), ids(benchmark, "test", tmp_path)
    assert len(dev) == 6
    assert not set(dev) & set(test)
    assert sorted(dev + test) == sorted(ids(benchmark, "all", tmp_path))


def test_the_files_order_does_not_matter(tmp_path):
    for part in ("dev", "test"):
        there = ids(own(tmp_path), part, tmp_path, 4)
        back = ids(own(tmp_path, order=-1), part, tmp_path, 4)
        assert sorted(there) == sorted(back)


def test_a_limit_keeps_the_same_problems_however_large_it_is(tmp_path):
    benchmark = own(tmp_path)
    kept = [set(ids(benchmark, "test", tmp_path, limit)) for limit in (1, 5, 24, 100)]
    assert [len(each) for each in kept] == [1, 5, 24, 24]
    assert kept[0] < kept[1] < kept[2] == kept[3]
    with pytest.raises(UsageError, match="--limit 0 leaves no problem"):
        select(benchmark, part="test", limit=0, data=tmp_path)


def test_the_problems_digest_tells_any_change(tmp_path):
    first = select(own(tmp_path), part="all", limit=None, data=tmp_path)[1].to_json()
    same = select(own(tmp_path, order=1), part="all", limit=None, data=tmp_path)[1].to_json()
    fewer = select(own(tmp_path, count=29), part="all", limit=None, data=tmp_path)[1].to_json()
    assert first == same
    assert first["problems_sha256"] != fewer["problems_sha256"]


def test_changed_problems_of_ones_own_have_no_parts(tmp_path):
    own(tmp_path)
    out = tmp_path / "changed.jsonl"
    perturb(str(tmp_path / "mine.jsonl"), operator="surface", severity=1, seed=0, out=out, data=tmp_path)
    changed = load_benchmark(str(out), data=tmp_path)
    assert changed.perturbation is not None
    with pytest.raises(UsageError, match="made from problems of your own.*--split all"):
        select(changed, part="test", limit=None, data=tmp_path)
    assert len(ids(changed, "all", tmp_path)) == 30


def test_a_file_of_ones_own_is_not_taken_for_the_benchmark_that_it_is_called_after(tmp_path):
    own(tmp_path, name="svamp")
    out = tmp_path / "changed.jsonl"
    perturb(str(tmp_path / "svamp.jsonl"), operator="surface", severity=1, seed=0, out=out, data=tmp_path)
    with pytest.raises(UsageError, match="made from problems of your own"):
        select(load_benchmark(str(out), data=tmp_path), part="test", limit=None, data=tmp_path)


@pytest.mark.parametrize(
    ("task", "dev", "test"),
    [("gsm8k", 1000, 1319), ("sciq", 1000, 1000), ("math500", 100, 400), ("svamp", 200, 800), ("bbh", 27 * 50, None)],
)
def test_the_real_parts_share_nothing(task, dev, test):
    data = real_data()
    benchmark = load_benchmark(task, data=data)
    found = {part: set(ids(benchmark, part, data)) for part in ("dev", "test")}
    assert len(found["dev"]) == dev
    assert len(found["test"]) == (len(benchmark.problems) - dev if test is None else test)
    assert not found["dev"] & found["test"]


@pytest.mark.parametrize("task", ["humaneval", "aime24", "amc23"])
def test_a_small_benchmark_has_no_dev(task):
    data = real_data()
    benchmark = load_benchmark(task, data=data)
    with pytest.raises(UsageError, match=f"{task} has no dev part: .*carry it over"):
        select(benchmark, part="dev", limit=None, data=data)
    assert len(ids(benchmark, "test", data)) == len(benchmark.problems)


def test_a_changed_problem_is_of_the_part_that_the_original_is_of(tmp_path):
    data = real_data()
    out = tmp_path / "svamp-surface.jsonl"
    perturb("svamp", operator="surface", severity=1, seed=0, out=out, data=data)
    changed, original = load_benchmark(str(out), data=data), load_benchmark("svamp", data=data)
    for part in ("dev", "test"):
        assert set(ids(changed, part, data)) <= set(ids(original, part, data))
    assert ids(changed, "dev", data)


def test_a_file_too_small_for_a_dev_part_says_so(tmp_path):
    benchmark = own(tmp_path, count=4)
    with pytest.raises(UsageError, match="mine has no dev part: .*fewer than 5"):
        select(benchmark, part="dev", limit=None, data=tmp_path)
    assert len(ids(benchmark, "test", tmp_path)) == 4


def test_dev_is_a_fifth_of_the_smallest_task_from_each_and_the_limit_is_of_each(tmp_path):
    file = tmp_path / "two.jsonl"
    rows = [{"id": f"{task}{n}", "task": task, "question": f"{task} {n}?", "answer": "1"}
            for task, count in (("a", 10), ("b", 40)) for n in range(count)]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark = load_benchmark(str(file), data=tmp_path)
    dev = ids(benchmark, "dev", tmp_path)
    assert [sum(id.startswith(task) for id in dev) for task in "ab"] == [2, 2]
    few = ids(benchmark, "test", tmp_path, 3)
    assert [sum(id.startswith(task) for id in few) for task in "ab"] == [3, 3]
    assert few == [problem.id for problem in benchmark.problems if problem.id in few]  # in the file's order


def test_the_rule_is_the_one_that_earlier_runs_were_divided_by(tmp_path):
    """Written down once: a rule that changes would make dev problems of then test problems of now."""
    benchmark = own(tmp_path)
    assert ids(benchmark, "dev", tmp_path) == ["q1", "q16", "q19", "q24", "q27", "q28"]
    assert ids(benchmark, "all", tmp_path, 3) == ["q2", "q6", "q20"]
