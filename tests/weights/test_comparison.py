"""`compare` against NumPy in float64 over the whole vectors at once."""

import io
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from reasonvec.errors import IncompatibleError, UsageError, VectorError
from reasonvec.terminal import comparison as tables
from reasonvec.weights import compare, extract

BF16 = np.dtype(ml_dtypes.bfloat16)
SHAPES = {"embed.weight": (30, 8), "layers.0.w": (300, 300), "layers.1.w": (8, 9), "layers.10.w": (7,)}
Arrays = dict[str, np.ndarray[Any, Any]]


def write(path: Path, tensors: Arrays) -> Path:
    path.mkdir()
    save_file(tensors, path / "model.safetensors")
    return path


def make(tmp_path: Path, name: str, seed: int, **changes: Any) -> tuple[Path, Arrays]:
    """A vector, and the difference of its donors in float64."""
    rng = np.random.default_rng(0)
    base = {n: (rng.standard_normal(s) * 0.02).astype(BF16) for n, s in {**SHAPES, **changes}.items()}
    rng = np.random.default_rng(seed)
    tuned = {
        n: np.where(rng.random(w.shape) < 0.4, w.astype(np.float64) + 1e-3 * rng.standard_normal(w.shape), w).astype(
            BF16
        )
        for n, w in base.items()
    }
    write(tmp_path / f"{name}-base", base)
    write(tmp_path / f"{name}-tuned", tuned)
    extract(tuned=tmp_path / f"{name}-tuned", base=tmp_path / f"{name}-base", out=tmp_path / name)
    return tmp_path / name, {n: tuned[n].astype(np.float64) - base[n].astype(np.float64) for n in base}


def flat(delta: Arrays, *names: str) -> Any:
    return np.concatenate([delta[n].ravel() for n in names or sorted(delta)])


def likeness(a: Any, b: Any) -> dict[str, float]:
    both = (a != 0) & (b != 0)
    return {
        "cosine": float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)),
        "sign_agreement": float((np.sign(a[both]) == np.sign(b[both])).mean()),
        "both_changed_share": float(both.mean()),
        "entries": a.size,
    }


def test_every_pair_overall_and_by_layer_agrees_with_numpy(tmp_path: Path) -> None:
    made = [make(tmp_path, name, seed) for name, seed in (("a", 1), ("b", 2), ("c", 3))]
    found = compare([path for path, _ in made]).to_json()
    deltas = [delta for _, delta in made]
    for entry, delta in zip(found["vectors"], deltas, strict=True):
        assert entry["norm"] == pytest.approx(np.linalg.norm(flat(delta)), rel=1e-12)
        assert entry["layers"][1]["norm"] == pytest.approx(np.linalg.norm(delta["layers.1.w"]), rel=1e-12)
    assert [(Path(p["first"]).name, Path(p["second"]).name) for p in found["pairs"]] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]
    for pair, (i, j) in zip(found["pairs"], ((0, 1), (0, 2), (1, 2)), strict=True):
        expected = likeness(flat(deltas[i]), flat(deltas[j]))
        assert {key: pair[key] for key in expected} == pytest.approx(expected, rel=1e-10)
        assert [layer["layer"] for layer in pair["layers"]] == ["0", "1", "10", "other"]
        for layer, name in zip(pair["layers"], ("layers.0.w", "layers.1.w"), strict=False):
            expected = likeness(deltas[i][name].ravel(), deltas[j][name].ravel())
            assert {key: layer[key] for key in expected} == pytest.approx(expected, rel=1e-10)
    json.dumps(found, allow_nan=False)


def test_a_vector_with_itself_and_with_its_opposite(tmp_path: Path) -> None:
    a, _ = make(tmp_path, "a", 1)
    extract(tuned=tmp_path / "a-base", base=tmp_path / "a-tuned", out=tmp_path / "minus")
    same, opposite = compare([a, a]).pairs[0].overall, compare([a, tmp_path / "minus"]).pairs[0].overall
    assert (same.cosine, same.sign_agreement) == (pytest.approx(1), 1)
    assert (opposite.cosine, opposite.sign_agreement) == (pytest.approx(-1), 0)


def test_an_empty_vector_has_no_cosine(tmp_path: Path) -> None:
    a, _ = make(tmp_path, "a", 1)
    extract(tuned=tmp_path / "a-base", base=tmp_path / "a-base", out=tmp_path / "zero")
    found = compare([a, tmp_path / "zero"])
    assert found.pairs[0].overall.cosine is None and found.pairs[0].overall.sign_agreement is None
    assert found.pairs[0].overall.both_changed_share == 0
    json.dumps(found.to_json(), allow_nan=False)


def test_tensors_that_not_all_have_in_one_shape_are_listed(tmp_path: Path) -> None:
    a, _ = make(tmp_path, "a", 1)
    b, _ = make(tmp_path, "b", 2, **{"layers.1.w": (9, 8), "layers.2.w": (3,)})
    with pytest.raises(IncompatibleError) as caught:
        compare([a, b])
    text = str(caught.value)
    assert "2 of 5 tensors" in text and f"layers.2.w: missing in {a}" in text
    assert f"layers.1.w: shape (8, 9) in {a}, (9, 8) in {b}" in text


def test_one_vector_is_a_wrong_usage_and_damage_is_found(tmp_path: Path) -> None:
    a, _ = make(tmp_path, "a", 1)
    with pytest.raises(UsageError, match="at least two vectors, not 1"):
        compare([a])
    file = next(a.glob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(VectorError, match="does not match its checksum"):
        compare([a, a])


def test_the_table_is_readable_at_80_columns(tmp_path: Path) -> None:
    a, b = make(tmp_path, "a", 1)[0], make(tmp_path, "b", 2)[0]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(tables.comparison(compare([a, b])))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80 and "1 and 2" in text and "…" not in text
