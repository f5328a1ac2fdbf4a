"""What was written into a checkpoint counts as what is attached to one: in the arm, the warnings and in stats."""

import hashlib
import json
import shutil

import pytest
from click.testing import CliRunner

from reasonvec.cli import main
from reasonvec.errors import CheckpointError
from reasonvec.evaluation import measuring
from reasonvec.evaluation.arm import open_arm
from reasonvec.evaluation.comparison import compare_runs
from reasonvec.evaluation.engines.interface import Sampling
from reasonvec.weights import apply, extract, transfer
from reasonvec.weights.documents import format_document
from tests.evaluation.measuring.models import but_length, checkpoint

SHORT = Sampling(max_new_tokens=4)


@pytest.fixture(scope="module")
def world(target, tmp_path_factory):
    """Two vectors, and checkpoints that were made with them."""
    folder = tmp_path_factory.mktemp("world")
    for seed, name in ((1, "one"), (2, "two")):
        extract(tuned=checkpoint(folder / f"tuned-{name}", seed=seed), base=target, out=folder / name)
    apply(vectors=[(folder / "one", 0.5)], target=target, out=folder / "with-one")
    apply(vectors=[(folder / "one", 0.5), (folder / "two", 0.25)], target=target, out=folder / "with-both")
    transfer(tuned=folder / "tuned-one", base=target, target=target, alpha=0.5, out=folder / "transferred")
    return folder


def measure(model, problems, out, **more):
    return measuring.evaluate(model, tasks=[str(problems)], out=out, part="all", sampling=SHORT, **more)[0]


@pytest.mark.parametrize(
    ("name", "vector", "alpha"),
    [("with-one", "{0}/one", 0.5), ("with-both", "{0}/one + {0}/two", None),
     ("transferred", "{0}/tuned-one - {1}", 0.5)],
)  # fmt: skip
def test_a_checkpoint_with_a_vector_in_it_is_never_taken_for_one_without(world, target, name, vector, alpha):
    arm = open_arm(world / name, vector=None, alpha=None).to_json()
    assert arm["vector"] == vector.format(world, target)
    assert arm["alpha"] == alpha
    assert arm["target"] == str(target)
    assert arm["attached"] is False


@pytest.mark.parametrize("name", ["with-both", "transferred"])
def test_stats_find_the_target_as_baseline_of_an_enhanced_checkpoint(world, target, problems, tmp_path, name):
    measure(world / name, problems, tmp_path / "a-enhanced")
    measure(target, problems, tmp_path / "b-target")
    (table,) = compare_runs([tmp_path / "a-enhanced", tmp_path / "b-target"]).tables
    assert table.baseline.name == "b-target"
    assert [(each.arm.name, each.baseline.name) for each in table.contrasts] == [("a-enhanced", "b-target")]


def test_a_vector_on_top_of_another_was_added_to_the_enhanced_checkpoint(world, problems, tmp_path):
    measure(world / "with-one", problems, tmp_path / "run", vector=world / "two", alpha=0.25)
    arm = json.loads((tmp_path / "run" / "run.json").read_text())["arm"]
    assert (arm["target"], arm["vector"], arm["alpha"]) == (str(world / "with-one"), str(world / "two"), 0.25)


def test_an_alpha_of_zero_answers_as_the_target_does(world, target, problems, tmp_path):
    measure(target, problems, tmp_path / "run", vector=world / "one", alpha=0.0)
    measure(target, problems, tmp_path / "alone")
    assert (tmp_path / "run/outcomes.jsonl").read_bytes() == (tmp_path / "alone/outcomes.jsonl").read_bytes()


@pytest.mark.parametrize("location", ["owner/that-is-in-no-cache", "s3://bucket/vector", "/nowhere/at/all"])
def test_a_vector_that_has_gone_since_does_not_hinder(world, tmp_path, location):
    moved = tmp_path / "moved"
    shutil.copytree(world / "with-one", moved)
    receipt = json.loads((moved / "reasonvec.json").read_text())
    receipt["vectors"][0]["location"] = location
    (moved / "reasonvec.json").write_bytes(format_document(receipt))
    arm = open_arm(moved, vector=None, alpha=None).to_json()
    assert (arm["vector"], arm["control"]) == (location, None)


def test_another_vector_at_the_recorded_place_is_not_asked_whether_it_is_a_control(world, target, tmp_path):
    made = CliRunner().invoke(main, ["control", str(world / "one"), "--kind", "random", "--seed", "1", "--out",
                                     str(tmp_path / "random")])  # fmt: skip
    assert made.exit_code == 0, made.output
    apply(vectors=[(tmp_path / "random", 0.5)], target=target, out=tmp_path / "enhanced")
    assert open_arm(tmp_path / "enhanced", vector=None, alpha=None).to_json()["control"] == "random"
    shutil.rmtree(tmp_path / "random")
    shutil.copytree(world / "one", tmp_path / "random")
    assert open_arm(tmp_path / "enhanced", vector=None, alpha=None).to_json()["control"] is None


def declare(place, *rows):
    (place / "training.json").write_text(json.dumps({"training_data": list(rows)}))


@pytest.mark.parametrize("written", [True, False])
def test_donors_training_data_is_found_whether_the_vector_is_attached_or_written(target, problems, tmp_path, written):
    tuned = checkpoint(tmp_path / "tuned", seed=1)
    training = tmp_path / "elsewhere" / "training.jsonl"
    training.parent.mkdir()
    training.write_text(problems.read_text())
    digest = hashlib.sha256(training.read_bytes()).hexdigest()
    declare(tuned, {"file": "training.jsonl", "path": str(training), "sha256": digest})
    extract(tuned=tuned, base=target, out=tmp_path / "vector")
    if written:
        apply(vectors=[(tmp_path / "vector", 1.0)], target=target, out=tmp_path / "enhanced")
        found = measure(tmp_path / "enhanced", problems, tmp_path / "run")
    else:
        found = measure(target, problems, tmp_path / "run", vector=tmp_path / "vector")
    assert [warning for warning in found.warnings if "7 of the 7 problems" in warning]


def test_a_benchmark_that_was_trained_on_is_found_under_data(tmp_path, target, monkeypatch):
    from reasonvec.evaluation.contamination import declared_training_data
    from reasonvec.weights.files import sha256_of

    donor = checkpoint(tmp_path / "donor")
    file = tmp_path / "data" / "gsm8k" / "train.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    row = {"name": "gsm8k/train", "file": "train.jsonl", "sha256": sha256_of(file)}
    declare(donor, row)
    arm = open_arm(donor, vector=None, alpha=None)
    assert declared_training_data(arm, data=tmp_path / "data").files == (file,)
    declare(donor, {**row, "sha256": "0" * 64})
    declared = declared_training_data(arm, data=tmp_path / "data")
    assert (declared.files, declared.missing) == ((), (f"train.jsonl ({donor})",))


def test_declared_training_data_that_has_gone_is_told_and_can_be_named(problems, tmp_path):
    donor = checkpoint(tmp_path / "donor")
    training = tmp_path / "moved.jsonl"
    training.write_text(json.dumps({"text": "Nothing of the kind."}))
    digest = hashlib.sha256(training.read_bytes()).hexdigest()
    declare(donor, {"file": "training.jsonl", "path": "/nowhere/training.jsonl", "sha256": digest})
    found = measure(donor, problems, tmp_path / "run")
    (told,) = but_length(found.warnings)
    assert f"declared that is not here, or is another file now: training.jsonl ({donor})" in told
    record = json.loads((tmp_path / "run" / "run.json").read_text())["contamination"]
    assert (record["missing"], record["overlapping"]) == ([f"training.jsonl ({donor})"], None)
    found = measure(donor, problems, tmp_path / "named", training_data=[training])
    assert but_length(found.warnings) == []


def test_a_checkpoint_in_a_store_is_refused_and_not_half_read(target, monkeypatch):
    from dataclasses import replace

    from reasonvec.evaluation import arm

    opened = open_arm(target, vector=None, alpha=None).checkpoint
    monkeypatch.setattr(arm, "locate_checkpoint", lambda *_, **__: replace(opened, mirror=object()))
    with pytest.raises(CheckpointError, match="is in a store, and a model is loaded from a disk"):
        open_arm("s3://bucket/model", vector=None, alpha=None)


def test_what_apply_would_warn_of_is_told_of_an_attached_vector_too(world, target, problems, tmp_path, monkeypatch):
    from dataclasses import replace

    def odd(*arguments, **more):
        return replace(open_arm(*arguments, **more), warnings=("Tokens have other ids",))

    monkeypatch.setattr(measuring, "open_arm", odd)
    found = measure(target, problems, tmp_path / "run", vector=world / "one", alpha=1.0)
    assert found.warnings.count("Tokens have other ids") == 1
