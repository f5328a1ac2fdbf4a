"""The product that an adapter adds, bit for bit as a sum of outer products in float64, however it is cut."""

import itertools

import ml_dtypes
import numpy as np
import pytest

from reasonvec.interchange.low_rank import Product
from reasonvec.interchange.names import Renaming, renamings
from tests.checkpoints import bits


@pytest.mark.parametrize(("rows", "columns"), [(700, 1000), (3, 40_000), (50_000, 3), (1, 1), (5, 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_any_run_of_entries_is_that_of_the_sum_of_outer_products(rows, columns, dtype):
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((rows, 5)).astype(dtype), rng.standard_normal((5, columns)).astype(dtype)
    expected = sum(np.outer(left[:, k].astype(float), right[k].astype(float)) for k in range(5)) * 0.3
    product = Product(left, right, 0.3)
    size = rows * columns
    cuts = sorted({0, size, *rng.integers(0, size + 1, 7).tolist()})
    found = [product.read(start, stop) for start, stop in itertools.pairwise([0, *cuts])]
    assert bits(np.concatenate([np.empty(0), *found])) == bits(expected.reshape(-1))


OURS = ["lm_head.weight", "model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight"]


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        (OURS, Renaming()),
        ([f"module.{name}" for name in OURS], Renaming(theirs="module.")),
        ([f"state_dict.model.{name}" for name in OURS], Renaming(theirs="state_dict.model.")),
        ([name.removeprefix("model.") for name in OURS[1:]], Renaming(ours="model.")),
        ([f"a.{name.removeprefix('model.')}" for name in OURS[1:]], Renaming(theirs="a.", ours="model.")),
    ],
)
def test_the_prefix_that_two_sets_of_names_differ_by_is_proposed(theirs, expected):
    assert expected in renamings(theirs, OURS)
    assert [expected.to_ours(name) for name in theirs] == OURS[-len(theirs) :]
    assert [expected.to_theirs(name) for name in OURS[-len(theirs) :]] == theirs
    assert renamings(theirs, OURS)[0] == Renaming()  # nothing is tried first


def test_many_names_with_one_ending_propose_few_prefixes():
    """A mixture of many experts: one rare name tells as much as thousands of alike."""
    names = [f"layers.{i}.experts.{j}.up_proj.weight" for i in range(30) for j in range(64)] + ["norm.weight"] * 1
    names += [f"layers.{i}.kind{i}.gain" for i in range(10)]
    assert len(renamings([f"model.{name}" for name in names], names)) <= 10
