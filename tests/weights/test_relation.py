"""How donors descend from an ancestor, on weights whose descent is known because the test made it."""

import numpy as np
import pytest

from reasonvec.errors import IncompatibleError
from reasonvec.weights import extract, inspect
from tests.checkpoints import random_tensors, write


def family(tmp_path, case):
    """An ancestor, an SFT donor a large step away, and a GRPO donor a small step from one of the two."""
    ancestor = random_tensors(0, np.float32)

    def step(tensors, seed, size):
        rng = np.random.default_rng(seed)
        return {name: (t + rng.standard_normal(t.shape) * size).astype(np.float32) for name, t in tensors.items()}

    sft = ancestor if case == "from the ancestor" else step(ancestor, 1, 2e-3)
    grpo = step(ancestor if case == "parallel" else sft, 2, 2e-4)
    for name, tensors in (("ancestor", ancestor), ("sft", sft), ("grpo", grpo)):
        write(tmp_path / name, tensors)
    flat = {name: np.concatenate([t.ravel() for t in tensors.values()]).astype(np.float64)
            for name, tensors in (("a", ancestor), ("s", sft), ("g", grpo))}  # fmt: skip
    return flat["g"] - flat["s"], flat["s"] - flat["a"], flat["g"] - flat["a"]


@pytest.mark.parametrize("case", ["chained", "parallel", "from the ancestor"])
def test_the_case_is_told_with_its_numbers(tmp_path, case):
    v, s, g = family(tmp_path, case)
    extraction = extract(tuned=tmp_path / "grpo", base=tmp_path / "sft", out=tmp_path / "vector",
                         ancestor=tmp_path / "ancestor")  # fmt: skip
    relation = extraction.relation
    assert relation.case == case
    assert relation.norm_v == pytest.approx(np.linalg.norm(v))
    assert relation.norm_s == pytest.approx(np.linalg.norm(s))
    assert relation.norm_g == pytest.approx(np.linalg.norm(g))
    if case != "from the ancestor":
        assert relation.cosine_v_s == pytest.approx(v @ s / np.linalg.norm(v) / np.linalg.norm(s))
        assert relation.cosine_v_g == pytest.approx(v @ g / np.linalg.norm(v) / np.linalg.norm(g))
        assert relation.cosine_s_g == pytest.approx(s @ g / np.linalg.norm(s) / np.linalg.norm(g))
    warned = any("takes" in warning and "back" in warning for warning in extraction.warnings)
    assert warned == (case == "parallel")
    assert inspect(tmp_path / "vector", ancestor=tmp_path / "ancestor").to_json()["relation"]["case"] == case


def test_an_ancestor_of_another_shape_is_refused(tmp_path):
    family(tmp_path, "chained")
    write(tmp_path / "other", {"model.norm.weight": np.ones(3, np.float32)})
    with pytest.raises(IncompatibleError, match="is not the donors' ancestor"):
        extract(tuned=tmp_path / "grpo", base=tmp_path / "sft", out=tmp_path / "v", ancestor=tmp_path / "other")
