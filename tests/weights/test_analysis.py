"""`inspect`: its numbers against NumPy in float64 and against exact singular values; its figure; its table."""

import io
import json
import shutil
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from reasonvec.errors import MissingExtraError, OutputError, UsageError, VectorError
from reasonvec.terminal import inspection as tables
from reasonvec.weights import extract, inspect, spectrum, write_permuted
from reasonvec.weights.arithmetic import STEP_BINS
from reasonvec.weights.figure import plot_inspection
from reasonvec.weights.modules import KINDS, kind_of

BF16 = np.dtype(ml_dtypes.bfloat16)
F32 = np.dtype(np.float32)
Arrays = dict[str, np.ndarray[Any, Any]]


def make_vector(path: Path, base: Arrays, tuned: Arrays, **arguments: Any) -> Path:
    for name, tensors in (("base", base), ("tuned", tuned)):
        (path / name).mkdir()
        save_file(tensors, path / name / "model.safetensors")
    extract(tuned=path / "tuned", base=path / "base", out=path / "vector", **arguments)
    return path / "vector"


def donors(seed: int = 0) -> tuple[Arrays, Arrays]:
    rng = np.random.default_rng(seed)
    shapes = {
        "model.embed_tokens.weight": (50, 32),
        "model.layers.0.self_attn.q_proj.weight": (32, 32),
        "model.layers.0.mlp.down_proj.weight": (32, 48),
        "model.layers.1.mlp.down_proj.weight": (32, 48),
        "model.layers.1.input_layernorm.weight": (32,),
        "model.norm.weight": (32,),
    }
    base = {name: (rng.standard_normal(shape) * 0.02).astype(BF16) for name, shape in shapes.items()}
    tuned = {
        name: np.where(rng.random(w.shape) < 0.3, w.astype(np.float64) + rng.standard_normal(w.shape) * 1e-3, w).astype(
            BF16
        )
        for name, w in base.items()
    }
    return base, tuned


def steps_by_counting(tuned: Any, base: Any) -> dict[str, int]:
    """Ranks among all finite bfloat16 numbers, found by sorting them, not by looking at bits."""
    numbers = np.arange(0x7F80, dtype=np.uint16).view(BF16).astype(np.float64)  # all from 0 to the largest
    grid = np.unique(np.concatenate([numbers, -numbers]))
    moves = np.abs(np.searchsorted(grid, tuned.astype(np.float64)) - np.searchsorted(grid, base.astype(np.float64)))
    counts = {}
    for label in STEP_BINS:
        low, _, high = label.partition("-")
        first, last = (256, 1 << 17) if label == "256+" else (int(low), int(high or low))
        counts[label] = int(((moves >= first) & (moves <= last)).sum())
    return counts


def test_norms_shares_and_steps_are_those_of_the_donors(tmp_path: Path) -> None:
    base, tuned = donors()
    found = inspect(make_vector(tmp_path, base, tuned)).to_json()
    delta = {name: tuned[name].astype(np.float64) - base[name].astype(np.float64) for name in base}
    flat = np.concatenate([d.ravel() for d in delta.values()])
    weights = np.concatenate([base[n].astype(np.float64).ravel() for n in delta])
    assert found["parameters"] == flat.size and found["tensors_count"] == len(base)
    assert found["norm"] == pytest.approx(np.linalg.norm(flat), rel=1e-12)
    assert found["relative_norm"] == pytest.approx(np.linalg.norm(flat) / np.linalg.norm(weights), rel=1e-6)
    assert found["unchanged_share"] == pytest.approx((flat == 0).mean(), abs=1e-12)
    assert found["rounding_share"] == 0 and found["relation"] is None
    for tensor in found["tensors"]:
        mine = delta[tensor["name"]]
        assert tensor["norm"] == pytest.approx(np.linalg.norm(mine), rel=1e-12)
        assert tensor["shape"] == list(mine.shape) and tensor["checkpoint_dtype"] == "BF16"
        counts = dict(zip(tensor["steps"]["bins"], tensor["steps"]["counts"], strict=True))
        assert counts == steps_by_counting(tuned[tensor["name"]], base[tensor["name"]])
    files = [p.stat().st_size for p in (tmp_path / "vector").rglob("*") if p.is_file() and p.name != "vector.json"]
    assert found["bytes"] == sum(files)
    json.dumps(found, allow_nan=False)


def test_layers_and_kinds_pool_their_tensors(tmp_path: Path) -> None:
    base, tuned = donors()
    found = inspect(make_vector(tmp_path, base, tuned), spectrum=False).to_json()
    assert [entry["layer"] for entry in found["layers"]] == [0, 1, None]
    assert [entry["kind"] for entry in found["kinds"]] == ["embedding", "q", "down", "norm"]
    down = [n for n in base if "down_proj" in n]
    d = np.concatenate([(tuned[n].astype(np.float64) - base[n].astype(np.float64)).ravel() for n in down])
    w = np.concatenate([base[n].astype(np.float64).ravel() for n in down])
    entry = found["kinds"][2]
    assert entry["parameters"] == d.size
    assert entry["relative_norm"] == pytest.approx(np.linalg.norm(d) / np.linalg.norm(w), rel=1e-6)
    assert entry["unchanged_share"] == pytest.approx((d == 0).mean())
    assert sum(found["steps"]["counts"]) == found["parameters"]
    assert all(tensor["energy"] is None for tensor in found["tensors"])


def energy_by_svd(*matrices: Any) -> dict[str, float]:
    squares = [np.linalg.svd(m.astype(np.float64), compute_uv=False) ** 2 for m in matrices]
    total = sum(s.sum() for s in squares)
    return {str(k): float(sum(s[:k].sum() for s in squares) / total) for k in (1, 4, 16)}


def energy_of(tmp_path: Path, delta: Any, seed: int = 0) -> dict[str, float]:
    base = np.zeros_like(delta)
    vector = make_vector(tmp_path, {"w.weight": base}, {"w.weight": delta})
    energy: dict[str, float] = inspect(vector, seed=seed).to_json()["tensors"][0]["energy"]
    return energy


def decaying(shape: tuple[int, int], power: float, size: float = 1e-3) -> Any:
    """A matrix whose singular values fall like 1 / i**power."""
    rng, rank = np.random.default_rng(5), min(shape)
    left, right = (np.linalg.qr(rng.standard_normal((n, rank)))[0] for n in shape)
    return (size * (left / np.arange(1, rank + 1) ** power) @ right.T).astype(np.float32)


@pytest.mark.parametrize("shape", [(64, 48), (300, 192), (5, 40), (400, 1), (1, 300), (7, 190)])
def test_energy_of_a_narrow_matrix_is_exact(tmp_path: Path, shape: tuple[int, int]) -> None:
    delta = (np.random.default_rng(1).standard_normal(shape) * 1e-3).astype(F32)
    assert energy_of(tmp_path, delta) == pytest.approx(energy_by_svd(delta), rel=1e-5)


@pytest.mark.parametrize(("shape", "power"), [((700, 300), 0.5), ((300, 700), 0.5), ((500, 400), 1.0)])
def test_energy_of_a_wide_matrix_with_a_falling_spectrum(tmp_path: Path, shape: tuple[int, int], power: float) -> None:
    delta = decaying(shape, power)
    assert energy_of(tmp_path, delta) == pytest.approx(energy_by_svd(delta), rel=0.01)


def test_energy_of_noise_is_short_by_some_percent_and_never_too_large(tmp_path: Path) -> None:
    delta = (np.random.default_rng(2).standard_normal((600, 500)) * 1e-4).astype(F32)
    found, exact = energy_of(tmp_path, delta), energy_by_svd(delta)
    for rank, share in exact.items():
        assert 0.93 * share <= found[rank] <= share * (1 + 1e-5)


def test_a_matrix_of_rank_one_has_all_energy_in_one_value(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    delta = np.outer(rng.standard_normal(300), rng.standard_normal(400)).astype(F32) * F32.type(1e-25)
    assert energy_of(tmp_path, delta) == pytest.approx({"1": 1, "4": 1, "16": 1}, rel=1e-4)


@pytest.mark.parametrize("columns", [40, 250])
def test_stacked_experts_have_singular_values_of_their_own(tmp_path: Path, columns: int) -> None:
    delta = np.stack([decaying((60, columns), power, size) for power, size in ((0.5, 1e-3), (2.0, 3e-3), (1.0, 1e-3))])
    assert energy_of(tmp_path, delta) == pytest.approx(energy_by_svd(*delta), rel=0.01)


@pytest.mark.parametrize("columns", [40, 250])
def test_experts_in_groups_have_the_energy_of_all_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    delta = np.stack([decaying((60, columns), power, 1e-3) for power in (0.5, 2.0, 1.0, 0.7, 0.2)])
    vector = make_vector(tmp_path, {"w.weight": np.zeros_like(delta)}, {"w.weight": delta})
    whole = inspect(vector).tensors[0].energy
    assert list(spectrum._groups(spectrum.Stack(*delta.shape))) == [range(5)]
    monkeypatch.setattr(spectrum, "SKETCH_NUMBERS", 2 * columns * min(columns, 32))  # one or two at a time
    assert inspect(vector).tensors[0].energy == pytest.approx(whole, rel=1e-6)


def test_memory_does_not_grow_with_the_number_of_experts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrum, "SKETCH_NUMBERS", 1 << 16)
    peaks = {}
    for count in (8, 48):
        (tmp_path / str(count)).mkdir()
        delta = np.random.default_rng(0).standard_normal((count, 8, 1024)).astype(F32)
        vector = make_vector(tmp_path / str(count), {"w.weight": np.zeros_like(delta)}, {"w.weight": delta})
        tracemalloc.start()
        inspect(vector)
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[48] < peaks[8] + 2_000_000  # all 48 sketches together take 75 million bytes


def test_a_flipped_byte_is_found_in_a_stack_that_is_read_in_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delta = np.random.default_rng(0).standard_normal((3, 20, 200)).astype(F32)
    vector = make_vector(tmp_path, {"w.weight": np.zeros_like(delta)}, {"w.weight": delta}, encoding="dense")
    file = next(vector.glob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    monkeypatch.setattr(spectrum, "SKETCH_NUMBERS", 1)
    with pytest.raises(VectorError, match="does not match its checksum"):
        inspect(vector)


def test_blocks_of_rows_and_the_seed_change_nothing_that_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delta = decaying((333, 257), 0.7)
    vector = make_vector(tmp_path, {"w.weight": np.zeros_like(delta)}, {"w.weight": delta})
    whole = inspect(vector).tensors[0].energy
    assert inspect(vector).tensors[0].energy == whole
    monkeypatch.setattr(spectrum, "BLOCK_ENTRIES", 1000)
    assert inspect(vector).tensors[0].energy == pytest.approx(whole, rel=1e-4)
    assert inspect(vector, seed=1).tensors[0].energy == pytest.approx(whole, rel=0.01)


def test_what_has_no_spectrum_has_no_energy(tmp_path: Path) -> None:
    base = {"a.weight": np.ones(9, F32), "b.weight": np.ones((9, 9), F32), "c.weight": np.ones((2, 2, 2, 2), F32)}
    tuned = {"a.weight": base["a.weight"] * 2, "b.weight": base["b.weight"], "c.weight": base["c.weight"] * 2}
    found = inspect(make_vector(tmp_path, base, tuned))
    assert [tensor.energy for tensor in found.tensors] == [None, None, None]


def test_a_flipped_byte_is_found_while_the_spectrum_is_computed(tmp_path: Path) -> None:
    vector = make_vector(tmp_path, *donors(), encoding="dense")
    file = next(vector.glob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(VectorError, match="does not match its checksum"):
        inspect(vector)


def test_an_empty_vector_has_zeros_and_no_nan(tmp_path: Path) -> None:
    base, _ = donors()
    inspection = inspect(make_vector(tmp_path, base, base))
    found = inspection.to_json()
    assert (found["norm"], found["relative_norm"], found["unchanged_share"]) == (0, 0, 1)
    json.dumps(found, allow_nan=False)
    plot_inspection(inspection, tmp_path / "empty.svg")


def test_donors_of_different_dtypes_show_their_rounding(tmp_path: Path) -> None:
    base, tuned = donors()
    wide = {n: w.astype(np.float32) * np.float32(1.001) for n, w in tuned.items()}
    found = inspect(make_vector(tmp_path, base, wide), spectrum=False)
    lost = np.concatenate([(w - w.astype(BF16).astype(np.float32)).astype(np.float64).ravel() for w in wide.values()])
    assert found.rounding_share == pytest.approx(np.linalg.norm(lost) / found.total.norm, rel=1e-9)


# ancestor


def test_an_ancestor_is_related_by_opening_the_donors_again(tmp_path: Path) -> None:
    base, tuned = donors()
    vector = make_vector(tmp_path, base, tuned)
    (tmp_path / "ancestor").mkdir()
    old = {n: (w.astype(np.float64) * 0.9).astype(BF16) for n, w in base.items()}
    save_file(old, tmp_path / "ancestor" / "model.safetensors")
    relation = inspect(vector, ancestor=tmp_path / "ancestor", spectrum=False).to_json()["relation"]
    v, s = (
        np.concatenate([(a[n].astype(np.float64) - b[n].astype(np.float64)).ravel() for n in base])
        for a, b in ((tuned, base), (base, old))
    )
    assert relation["norm_s"] == pytest.approx(np.linalg.norm(s))
    assert relation["cosine_v_s"] == pytest.approx(v @ s / np.linalg.norm(v) / np.linalg.norm(s))
    assert relation["case"] == "chained"


def test_donors_that_are_gone_or_changed_are_an_error_with_the_way_out(tmp_path: Path) -> None:
    base, tuned = donors()
    vector = make_vector(tmp_path, base, tuned)
    save_file({n: w.astype(np.float32) for n, w in tuned.items()}, tmp_path / "tuned" / "model.safetensors")
    with pytest.raises(VectorError, match=r"is not the tuned donor.*extract the vector anew with --ancestor"):
        inspect(vector, ancestor=tmp_path / "base")
    shutil.rmtree(tmp_path / "tuned")
    with pytest.raises(VectorError, match=r"tuned donor .* cannot be opened.*does not exist"):
        inspect(vector, ancestor=tmp_path / "base")


def test_a_control_has_no_donors_to_relate(tmp_path: Path) -> None:
    vector = make_vector(tmp_path, *donors())
    write_permuted(vector=vector, out=tmp_path / "permuted", seed=0)
    found = inspect(tmp_path / "permuted")
    assert found.to_json()["control"]["kind"] == "permuted"
    plot_inspection(found, tmp_path / "control.png")
    with pytest.raises(UsageError, match="is a control"):
        inspect(tmp_path / "permuted", ancestor=tmp_path / "base")


# names


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.layers.0.self_attn.q_proj.weight", "q"),
        ("model.layers.0.self_attn.k_proj.bias", "k"),
        ("model.layers.0.self_attn.v_proj.weight", "v"),
        ("model.layers.0.self_attn.o_proj.weight", "o"),
        ("model.layers.0.self_attn.q_norm.weight", "norm"),
        ("model.layers.0.post_feedforward_layernorm.weight", "norm"),
        ("model.norm.weight", "norm"),
        ("model.layers.0.mlp.gate_proj.weight", "gate"),
        ("model.layers.0.mlp.up_proj.weight", "up"),
        ("model.layers.0.mlp.down_proj.weight", "down"),
        ("model.embed_tokens.weight", "embedding"),
        ("lm_head.weight", "embedding"),
        ("transformer.wte.weight", "embedding"),
        ("transformer.h.0.ln_1.weight", "norm"),
        ("transformer.ln_f.bias", "norm"),
        ("transformer.h.0.attn.c_attn.weight", "qkv"),
        ("transformer.h.0.attn.c_proj.weight", "o"),
        ("transformer.h.0.mlp.c_fc.bias", "up"),
        ("transformer.h.0.mlp.c_proj.weight", "down"),
        ("gpt_neox.layers.0.attention.query_key_value.weight", "qkv"),
        ("gpt_neox.layers.0.attention.dense.weight", "o"),
        ("model.layers.0.block_sparse_moe.experts.3.w1.weight", "gate"),
        ("model.layers.0.block_sparse_moe.experts.3.w2.weight", "down"),
        ("model.layers.0.block_sparse_moe.experts.3.w3.weight", "up"),
        ("model.layers.0.block_sparse_moe.gate.weight", "router"),
        ("model.layers.0.mlp.experts.gate_up_proj", "gate_up"),
        ("model.layers.0.mlp.experts.gate_up_proj_bias", "gate_up"),
        ("model.layers.0.mixer.A_log", "other"),
        ("weight", "other"),
        ("", "other"),
    ],
)
def test_kinds_are_told_from_names_across_families(name: str, kind: str) -> None:
    assert kind_of(name) == kind and kind in KINDS


# figure and table


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_figure_is_written_whole_in_the_format_of_its_suffix(tmp_path: Path, suffix: str, magic: bytes) -> None:
    inspection = inspect(make_vector(tmp_path, *donors()))
    file = tmp_path / f"figure{suffix}"
    plot_inspection(inspection, file)
    assert file.read_bytes().startswith(magic) and file.stat().st_mode & 0o777 == 0o644
    assert not list(tmp_path.glob(".figure*"))
    before = file.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        plot_inspection(inspection, file)
    plot_inspection(inspection, file, force=True)
    assert suffix == ".svg" or file.read_bytes() == before


def test_a_figure_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspection = inspect(make_vector(tmp_path, *donors()))
    with pytest.raises(UsageError, match=r"suffix '.gif'; a figure is .png, .svg, .pdf"):
        plot_inspection(inspection, tmp_path / "a.gif")
    with pytest.raises(OutputError, match="does not exist"):
        plot_inspection(inspection, tmp_path / "nowhere" / "a.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r'pip install "reasonvec\[report\]"'):
        plot_inspection(inspection, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_the_table_is_readable_at_80_columns(tmp_path: Path) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(tables.inspection(inspect(make_vector(tmp_path, *donors()))))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "embedding" in text and "…" not in text
