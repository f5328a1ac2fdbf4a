"""Blocks and the threads that work on them: results in order, bytes that do not depend on their number."""

import threading
import time

import numpy as np
import pytest

from reasonvec.weights import Options, apply, extract, transfer, verify
from reasonvec.weights.blocks import BLOCK, Scratch, Workers, blocks
from tests.checkpoints import BF16, moved, write
from tests.vectors import tensor_digest

ENTRIES = 3 * BLOCK + 1234


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Donors and a target with a tensor of several blocks between two small ones."""
    root = tmp_path_factory.mktemp("blocks")
    rng = np.random.default_rng(0)
    base = {name: (rng.standard_normal(shape) * 0.02).astype(BF16)
            for name, shape in (("a", (7,)), ("b.weight", (2, ENTRIES // 2)), ("c", (5, 3)))}  # fmt: skip
    for name, tensors in (("base", base), ("tuned", moved(base, 1)), ("target", moved(base, 2))):
        write(root / name, tensors)
    return root


def contents(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("encoding", ["auto", "dense", "sparse"])
def test_vectors_do_not_depend_on_the_number_of_workers(root, tmp_path, encoding):
    for workers in (1, 2, 5):
        extract(tuned=root / "tuned", base=root / "base", out=tmp_path / f"v{workers}", encoding=encoding,
                workers=workers)  # fmt: skip
    expected = contents(tmp_path / "v1")
    assert contents(tmp_path / "v2") == contents(tmp_path / "v5") == expected
    assert verify(tmp_path / "v1", workers=3).recomputed


@pytest.mark.parametrize("options", [Options(), Options(rounding="stochastic", seed=3), Options(dtype="float32")])
def test_checkpoints_do_not_depend_on_the_number_of_workers(root, tmp_path, options):
    donors = {"tuned": root / "tuned", "base": root / "base"}
    extract(**donors, out=tmp_path / "v")
    for workers in (1, 4):
        apply(vectors=[(tmp_path / "v", 0.7)], target=root / "target", out=tmp_path / f"a{workers}", options=options,
              workers=workers)  # fmt: skip
        transfer(**donors, target=root / "target", alpha=0.7, out=tmp_path / f"t{workers}", options=options,
                 workers=workers)  # fmt: skip
    assert contents(tmp_path / "a1") == contents(tmp_path / "a4")
    assert contents(tmp_path / "t1") == contents(tmp_path / "t4")
    assert contents(tmp_path / "a1")["model.safetensors"] == contents(tmp_path / "t1")["model.safetensors"]


def test_the_digest_is_of_the_digests_of_blocks(root, tmp_path):
    vector = extract(tuned=root / "tuned", base=root / "base", out=tmp_path / "v", encoding="dense").vector
    from tests.checkpoints import read

    stored = read(tmp_path / "v")
    assert {name: delta.digest for name, delta in vector.deltas.items()} == {
        name: tensor_digest(values) for name, values in stored.items()
    }


@pytest.mark.parametrize("count", [1, 2, 7])
def test_results_come_in_order_however_long_the_work_takes(count):
    def work(number, scratch):
        time.sleep(0.002 * (number % 3))
        return number

    with Workers(count) as pool:
        assert list(pool.map(work, range(40))) == list(range(40))


@pytest.mark.parametrize("count", [1, 3])
def test_the_first_error_in_order_is_raised_and_nothing_runs_after_it(count):
    running = []

    def work(number, scratch):
        running.append(number)
        time.sleep(0.01)
        if number >= 5:
            raise ValueError(str(number))
        return number

    with pytest.raises(ValueError, match="5"), Workers(count) as pool:
        list(pool.map(work, range(1000)))
    seen = len(running)
    time.sleep(0.05)
    assert len(running) == seen < 30


def test_tasks_are_made_as_they_are_needed():
    made = []

    def tasks():
        for number in range(100):
            made.append(number)
            yield number

    with Workers(2) as pool:
        found = pool.map(lambda number, scratch: number, tasks())
        next(found)
        assert len(made) <= 6


def test_every_thread_has_a_scratch_of_its_own():
    found = {}
    barrier = threading.Barrier(3)

    def work(number, scratch):
        barrier.wait()
        found[threading.get_ident()] = scratch

    with Workers(3) as pool:
        list(pool.map(work, range(3)))
    assert len({id(scratch) for scratch in found.values()}) == 3


def test_scratch_arrays_are_reused_and_distinct_by_role():
    scratch = Scratch()
    a, b = scratch.array("a", 10, np.float32), scratch.array("b", 10, np.float32)
    a[:], b[:] = 1, 2
    assert scratch.array("a", 5, np.float32).tolist() == [1] * 5
    assert scratch.array("b", 10, np.float32).tolist() == [2] * 10
    assert scratch.part(0) is scratch.part(0)
    assert scratch.part(0) is not scratch.part(1)


def test_an_empty_tensor_has_one_empty_block():
    assert list(blocks(0)) == [(0, 0)]
    assert list(blocks(BLOCK)) == [(0, BLOCK)]
    assert list(blocks(BLOCK + 1)) == [(0, BLOCK), (BLOCK, BLOCK + 1)]
