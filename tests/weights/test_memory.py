"""Promise 5, constant memory: what a command takes does not depend on the size of the model, and is small."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reasonvec.weights import apply, extract, job
from reasonvec.weights.blocks import BLOCK
from tests.checkpoints import BF16, moved, write

MOST = 64_000_000
"""Bytes resident, interpreter and libraries included, with one worker; 128 MB with several."""

PEAK = """
import sys
from pathlib import Path
from reasonvec.cli import main
try: main(sys.argv[1:])
except SystemExit as stop: assert not stop.code, stop.code
lines = Path("/proc/self/status").read_text().splitlines()
print("PEAK", next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")))
"""


def peak(*words):
    done = subprocess.run([sys.executable, "-c", PEAK, *map(str, words)], capture_output=True, text=True, check=True)
    return int(done.stdout.split("PEAK")[1])


def model(root, megabytes):
    """Donors and target with one tensor of most of the size, so that nothing is saved by having many."""
    count = megabytes * 1_000_000 // 2
    rng = np.random.default_rng(0)
    part = {"w": (rng.standard_normal(BLOCK) * 0.02).astype(BF16)}
    for name, seed in (("base", None), ("tuned", 1), ("target", 2)):
        block = part["w"] if seed is None else moved(part, seed)["w"]
        write(root / name, {"w": np.resize(block, count), "x": block[:1000]})
    return root


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize("encoding", ["dense", "sparse"])
def test_the_peak_is_small_and_does_not_grow(tmp_path, encoding):
    peaks = {}
    for size in (4, 80):
        root = model(tmp_path / str(size), size)
        donors = ["--tuned", root / "tuned", "--base", root / "base"]
        one = ["--workers", 1]
        peaks[size] = [
            peak("extract", *donors, "--out", root / "v", "--encoding", encoding, *one),
            peak(
                "apply", "--vector", root / "v", "--target", root / "target", "--out", root / "o", "--alpha", 0.7, *one
            ),
            peak("transfer", *donors, "--target", root / "target", "--out", root / "t", *one),
            peak("verify", root / "o", *one),
            peak("verify", root / "v", *one),
        ]
    assert max(peaks[80]) < MOST
    assert max(large - small for small, large in zip(peaks[4], peaks[80], strict=True)) < 8_000_000
    root = tmp_path / "80"
    assert peak("transfer", "--tuned", root / "tuned", "--base", root / "base", "--target", root / "target", "--out",
                root / "t4", "--workers", 4) < 2 * MOST  # fmt: skip


def test_models_larger_than_memory_do_not_push_all_else_out_of_it(tmp_path, monkeypatch):
    root = model(tmp_path, 4)
    extract(tuned=root / "tuned", base=root / "base", out=root / "v")
    advised = []
    original = os.posix_fadvise

    def record(descriptor, offset, length, advice):
        advised.append((Path(f"/proc/self/fd/{descriptor}").readlink(), advice))
        return original(descriptor, offset, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", record)
    job_options = {"vectors": [(root / "v", 1.0)], "target": root / "target"}
    apply(**job_options, out=root / "small")
    assert advised == []
    monkeypatch.setattr(job, "exceeds_memory", lambda inputs: True)
    apply(**job_options, out=root / "large")
    assert {advice for _, advice in advised} == {os.POSIX_FADV_DONTNEED}
    dropped = {path.name for path, _ in advised}
    assert {"model.safetensors", "vector-sparse-00001.safetensors"} <= dropped
    assert any(".large.reasonvec-partial" in path.parts for path, _ in advised)
