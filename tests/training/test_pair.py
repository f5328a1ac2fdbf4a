"""`train pair`: two donors, their difference, and no vector where there is nothing in it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from reasonvec.cli import main
from reasonvec.errors import IncompatibleError, OutputError, TrainingError, UsageError
from reasonvec.training.directory import read_record
from reasonvec.training.donor import Request, train_donor
from reasonvec.training.pair import train_pair
from reasonvec.weights import apply
from tests.training.small import GRPO, SFT, request

pytestmark = pytest.mark.lab


def _pair(base: Path, sums: Path, out: Path, *changes: str, **others: Any) -> Request:
    asked = request("grpo", base, sums, out, **others)
    both = (*(f"sft.{change}" for change in SFT), *(f"grpo.{change}" for change in GRPO), *changes)
    return replace(asked, changes=both)


def test_a_chained_pair_and_its_vector(base: Path, sums: Path, tmp_path: Path) -> None:
    out = tmp_path / "pair"
    made = train_pair(_pair(base, sums, out))
    sft, grpo = (load_file(out / name / "model.safetensors") for name in ("sft", "grpo"))
    assert {tensor.dtype for tensor in [*sft.values(), *grpo.values()]} == {torch.float32}
    apply(vectors=[(out / "vector", 1.0)], target=out / "sft", out=tmp_path / "rebuilt")
    rebuilt = load_file(tmp_path / "rebuilt" / "model.safetensors")
    assert all(torch.equal(rebuilt[name], grpo[name]) for name in grpo)
    assert any(not torch.equal(sft[name], grpo[name]) for name in grpo)
    assert made.extraction is not None
    assert made.extraction.relation is not None
    assert made.extraction.relation.case == "chained"
    record = read_record(out / "grpo")
    assert record is not None
    assert record["model"]["location"] == str(out / "sft")
    assert record["parent"]["kind"] == "sft"
    assert [entry["sha256"] for entry in record["training_data"]] == 2 * [record["data"]["sha256"]]
    assert sorted(path.name for path in out.iterdir()) == ["grpo", "sft", "vector"]
    with pytest.raises(OutputError, match="holds a finished pair"):
        train_pair(_pair(base, sums, out))


def test_a_parallel_pair_is_told_as_one(base: Path, sums: Path, tmp_path: Path) -> None:
    said: list[str] = []
    made = train_pair(_pair(base, sums, tmp_path / "pair"), variant="parallel", warn=said.append)
    assert made.extraction is not None
    assert made.extraction.relation is not None
    assert made.extraction.relation.case == "parallel"
    assert any("Both donors were trained from the ancestor" in text for text in said)
    assert read_record(tmp_path / "pair" / "grpo")["parent"] is None  # type: ignore[index]


def test_an_almost_empty_vector_is_an_explained_failure_and_no_file(base: Path, sums: Path, tmp_path: Path) -> None:
    out = tmp_path / "pair"
    with pytest.raises(TrainingError, match=r"almost empty: 0 of [\d,]+ entries differ .* no vector was written"):
        train_pair(_pair(base, sums, out, "grpo.learning_rate=0"))
    assert sorted(path.name for path in out.iterdir()) == ["grpo", "sft"]
    assert (out / "grpo" / "config.json").exists()


def test_a_vector_of_rounding_is_an_explained_failure_and_no_file(base: Path, sums: Path, tmp_path: Path) -> None:
    """Steps of 1e-5 on weights of size 0.2, whose bfloat16 neighbours are 1e-3 apart."""
    out = tmp_path / "pair"
    with pytest.raises(TrainingError, match=r"mostly rounding: putting the donors on one grid moved them by"):
        train_pair(_pair(base, sums, out, "grpo.learning_rate=2e-5", dtype="bfloat16"))
    assert sorted(path.name for path in out.iterdir()) == ["grpo", "sft"]


def test_an_interrupted_pair_goes_on(base: Path, sums: Path, tmp_path: Path) -> None:
    out = tmp_path / "pair"
    asked = _pair(base, sums, out)
    train_donor(replace(asked, kind="sft", out=out / "sft", rewards=(), changes=SFT))
    with pytest.raises(OutputError, match="holds an interrupted pair"):
        train_pair(asked)
    before = (out / "sft" / "model.safetensors").stat().st_mtime_ns
    train_pair(replace(asked, resume=True))
    assert (out / "sft" / "model.safetensors").stat().st_mtime_ns == before
    assert (out / "vector" / "vector.json").exists()


def test_an_sft_donor_at_hand_needs_the_tokenizer_of_the_base(base: Path, sums: Path, tmp_path: Path) -> None:
    other = shutil.copytree(base, tmp_path / "other")
    path = other / "tokenizer.json"
    document = json.loads(path.read_text())
    vocabulary = document["model"]["vocab"]
    one, two = sorted(vocabulary)[50:52]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    path.write_text(json.dumps(document))
    with pytest.raises(IncompatibleError, match="have different tokenizers"):
        train_pair(_pair(base, sums, tmp_path / "pair"), sft=str(other))
    assert not (tmp_path / "pair").exists()
    made = train_pair(_pair(base, sums, tmp_path / "pair"), sft=str(base))
    assert made.sft is None
    assert sorted(path.name for path in (tmp_path / "pair").iterdir()) == ["grpo", "vector"]


def test_a_change_says_of_which_training_it_is(base: Path, sums: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"write sft\.max_steps=1 or grpo\.max_steps=1"):
        train_pair(_pair(base, sums, tmp_path / "pair", "max_steps=1"))


def test_what_is_in_the_way_is_left_alone(base: Path, sums: Path, tmp_path: Path) -> None:
    (tmp_path / "pair").mkdir()
    (tmp_path / "pair" / "thesis.tex").write_text("")
    with pytest.raises(OutputError, match=r"holds thesis\.tex"):
        train_pair(replace(_pair(base, sums, tmp_path / "pair"), force=True))
    assert (tmp_path / "pair" / "thesis.tex").exists()


def test_the_command_prints_the_vector_and_the_next_step(base: Path, sums: Path, tmp_path: Path) -> None:
    changes = [argument for change in _pair(base, sums, tmp_path).changes for argument in ("--set", change)]
    result = CliRunner().invoke(main, [
        "train", "pair", "--model", str(base), "--data", str(sums), "--bare", "--data-dir", str(tmp_path / "none"),
        "--reward", "tests.training.small:small_ids", "--out", str(tmp_path / "pair"), *changes,
    ])  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "held out" in result.stdout
    assert f"reasonvec apply --vector {tmp_path / 'pair' / 'vector'}" in result.stderr
