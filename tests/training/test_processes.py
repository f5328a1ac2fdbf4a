"""The same training on two processes of one CPU, as `accelerate launch` starts them, with gloo between them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from reasonvec.training.directory import read_log, read_record
from reasonvec.training.donor import train_donor
from tests.training.small import GRPO, SFT, request, write_sums

pytestmark = pytest.mark.lab


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def test_two_processes_train_the_pair_that_one_trains(base: Path, tmp_path: Path) -> None:
    """4 rows on each of two processes are the 8 rows of one, so SFT's losses have to be the same."""
    out, sums = tmp_path / "pair", write_sums(tmp_path / "sums.jsonl", 26)  # 24 are trained on: no batch is filled up
    changes = [
        *(f"sft.{change}" for change in SFT), "sft.per_device_train_batch_size=4",
        *(f"grpo.{change}" for change in GRPO), "grpo.per_device_train_batch_size=8",
    ]  # fmt: skip
    # --multi_gpu is accelerate's word for several processes here; with --cpu it starts one, whatever --num_processes
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1",
        "--main_process_port", str(_free_port()),
        "-m", "reasonvec", "train", "pair", "--model", str(base), "--data", str(sums), "--bare", "--out", str(out),
        "--data-dir", str(tmp_path / "none"), "--reward", "tests.training.small:small_ids",
        *(argument for change in changes for argument in ("--set", change)),
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("loss there") == 1  # the main process alone speaks
    one = tmp_path / "one"
    train_donor(request("sft", base, sums, one))
    expected, found = read_log(one), read_log(out / "sft")
    assert [line["step"] for line in found] == [1, 2, 3, 4, 5, 6]
    for then, now in zip(expected, found, strict=True):
        assert now["loss"] == pytest.approx(then["loss"], abs=1e-5)
    for name in ("sft", "grpo"):
        record = read_record(out / name)
        assert record is not None
        assert record["processes"] == 2
    assert [line["step"] for line in read_log(out / "grpo")] == [1, 2, 3, 4, 5, 6]
    assert all(line["loss"] for line in read_log(out / "grpo"))
    assert (out / "vector" / "vector.json").exists()
