"""What is in a vector: pooling by hand, and documents with holes."""

from math import sqrt

import pytest

from reasonvec.report import anatomy


def test_tensors_of_one_cell_are_pooled_in_squares() -> None:
    # weights' norms 10 and 20, the vector's 1 and 0.5: sqrt(1 + 0.25) / sqrt(100 + 400)
    tensors = [
        {"layer": 0, "kind": "q", "norm": 1.0, "relative_norm": 0.1},
        {"layer": 0, "kind": "q", "norm": 0.5, "relative_norm": 0.025},
        {"layer": None, "kind": "embedding", "norm": 2.0, "relative_norm": 0.01},
    ]
    read = anatomy.heat_map({"tensors": tensors})
    assert read is not None
    assert read.layers == ("outside layers", "layer 0")
    assert read.kinds == ("embedding", "q")
    assert {(layer, kind): value for layer, kind, value in read.cells()} == pytest.approx(
        {("outside layers", "embedding"): 0.01, ("layer 0", "q"): sqrt(1.25 / 500)}
    )


def test_tensors_without_numbers_are_left_out() -> None:
    tensors = [
        {"layer": 0, "kind": "q"},
        {"layer": 0, "kind": "k", "norm": float("nan"), "relative_norm": 0.1},
        {"layer": 1, "kind": "v", "norm": 0.0, "relative_norm": 0.0},
    ]
    read = anatomy.heat_map({"tensors": tensors})
    assert read is not None
    assert list(read.cells()) == [("layer 1", "v", 0.0)]
    assert anatomy.heat_map({}) is None


def test_histograms_add_up_whatever_order_their_bins_are_in() -> None:
    tensors = [
        {"steps": {"bins": ["0", "1", "3-4"], "counts": [10, 5, 1]}},
        {"steps": {"bins": ["1", "2", "5+"], "counts": [3, 1, 0]}},
        {"steps": None},
    ]
    read = anatomy.step_histogram({"tensors": tensors})
    assert read is not None
    assert dict(zip(read.bins, read.shares, strict=True)) == {"0": 50.0, "1": 40.0, "2": 5.0, "3-4": 5.0, "5+": 0.0}
    assert read.bins == ("0", "1", "2", "3-4", "5+")
    assert anatomy.step_histogram({"tensors": [{"steps": {"bins": ["0"], "counts": [0]}}]}) is None


def test_energy_is_the_mean_over_the_tensors_that_have_it() -> None:
    tensors = [
        {"kind": "q", "energy": {"16": 0.9, "1": 0.2}},
        {"kind": "q", "energy": {"1": 0.4}},
        {"kind": "norm", "energy": None},
    ]
    ranks, shares = anatomy.energies({"tensors": tensors})
    assert ranks == ("1", "16")
    assert shares == {"q": {"1": pytest.approx(0.3), "16": 0.9}}
