"""The checkpoints that are measured are what they are said to be, by the safetensors library's reading."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from make_checkpoints import make, split
from shapes import SHAPES, layers_shape

TINY = SHAPES["tiny"]


def written(path, shards=1, **options):
    make(path, TINY, shards, **{"unchanged": 0.8, "seed": 0, "repeat": False, "filled": None, **options})
    return {role: read(path / role) for role in ("base", "tuned", "target")}


def read(directory):
    return {name: tensor for file in directory.glob("*.safetensors") for name, tensor in load_file(file).items()}


def test_tensors_do_not_depend_on_the_shards_and_the_index_finds_them(tmp_path):
    one, many = written(tmp_path / "one"), written(tmp_path / "many", shards=25)
    assert {name: tensor.shape for name, tensor in one["base"].items()} == dict(TINY.tensors())
    for role in one:
        assert all(one[role][name].tobytes() == many[role][name].tobytes() for name in one[role])
        index = json.loads((tmp_path / "many" / role / "model.safetensors.index.json").read_text())
        assert len(set(index["weight_map"].values())) == 25
        assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in one[role].values())
        for name, file in index["weight_map"].items():
            assert name in load_file(tmp_path / "many" / role / file)


@pytest.mark.parametrize(("asked", "low", "high"), [(0.55, 0.5, 0.58), (0.8, 0.75, 0.83), (0.94, 0.92, 0.96)])
def test_about_that_share_of_the_entries_keeps_its_bits(tmp_path, asked, low, high):
    made = written(tmp_path / "made", unchanged=asked)
    same = np.concatenate([(made["base"][n] == made["tuned"][n]).ravel() for n in made["base"]])
    assert low < same.mean() < high


def test_holes_read_as_zeros_and_repeated_blocks_as_themselves(tmp_path):
    made = written(tmp_path / "made", repeat=True, filled=100)
    first = made["tuned"]["model.norm.weight"]
    for tensor in made["tuned"].values():
        flat = tensor.ravel()
        assert not flat[100:].any()
        assert (flat[: min(100, first.size)] == first.ravel()[: flat.size]).all()
    assert not any(tensor.any() for tensor in written(tmp_path / "empty", filled=0)["base"].values())


def test_groups_hold_every_tensor_once_in_order():
    tensors = list(SHAPES["qwen2.5-1.5b"].tensors())
    groups = split(tensors, 25)
    assert len(groups) == 25
    assert [tensor for group in groups for tensor in group] == tensors


def test_shapes_have_the_sizes_that_they_are_named_for():
    millions = {name: shape.weights() / 1e6 for name, shape in SHAPES.items()}
    assert millions["qwen2.5-0.5b"] == pytest.approx(494, rel=0.01)
    assert millions["qwen2.5-1.5b"] == pytest.approx(1544, rel=0.01)
    assert millions["qwen2.5-7b"] == pytest.approx(7616, rel=0.01)
    assert millions["700b"] == pytest.approx(700_000, rel=0.01)
    assert layers_shape(3).weights() * 2 * 3 == pytest.approx(3 * 101e6, rel=0.02)
