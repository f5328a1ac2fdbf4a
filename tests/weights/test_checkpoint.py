"""Promise 6, safe input: what is refused when a checkpoint is opened, and with which words."""

import json
import os

import pytest

from reasonvec.errors import CheckpointError
from reasonvec.weights.checkpoint import layer_of, open_checkpoint
from reasonvec.weights.hub import locate_checkpoint
from reasonvec.weights.provenance import describe_checkpoint
from tests.checkpoints import random_tensors, write


@pytest.fixture
def tensors():
    return random_tensors(0)


def refused(path, message, **options):
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path, **options)


def edit_index(path, change):
    file = path / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    change(index["weight_map"])
    file.write_text(json.dumps(index))


def test_one_file_and_shards_give_the_same_tensors(tmp_path, tensors):
    one, many = write(tmp_path / "one", tensors), write(tmp_path / "many", tensors, shards=3)
    a, b = open_checkpoint(one).tensors, open_checkpoint(many).tensors
    assert [(e.name, e.dtype, e.shape) for e in a.values()] == [(e.name, e.dtype, e.shape) for e in b.values()]


@pytest.mark.parametrize("shard", ["../base/model.safetensors", "/etc/passwd", "a/b.safetensors", "x\0.safetensors", 7,
                                   "model.bin"])  # fmt: skip
def test_an_index_may_name_files_of_its_own_directory_only(tmp_path, tensors, shard):
    path = write(tmp_path / "c", tensors, shards=2)
    edit_index(path, lambda weight_map: weight_map.update({"model.norm.weight": shard}))
    refused(path, "a path that leads elsewhere could read any file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("model.norm.weight"), "is not in the index"),
        (lambda m: m.update({"ghost": m["model.norm.weight"]}), "'ghost' is in no shard"),
        (lambda m: m.update(dict.fromkeys(m, "model-00003-of-00003.safetensors")), "is missing"),
        (lambda m: m.update({"model.norm.weight": next(v for v in m.values() if v != m["model.norm.weight"])}),
         "is in model-0000"),
        (lambda m: m.clear(), "has no `weight_map`"),
    ],
)  # fmt: skip
def test_an_index_that_disagrees_with_its_shards_is_refused(tmp_path, tensors, change, message):
    path = write(tmp_path / "c", tensors, shards=2)
    edit_index(path, change)
    refused(path, message)


def test_a_name_in_two_shards_is_refused(tmp_path, tensors):
    path = write(tmp_path / "c", tensors, shards=2)
    other = write(tmp_path / "d", tensors)
    first = path / "model-00001-of-00002.safetensors"
    first.write_bytes((other / "model.safetensors").read_bytes())
    refused(path, "tensors are in two shards")


def test_a_truncated_shard_is_refused(tmp_path, tensors):
    path = write(tmp_path / "c", tensors, shards=2)
    shard = path / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-7])
    refused(path, "model-00002-of-00002.safetensors: .* It was cut off or damaged")


def test_a_stale_single_file_beside_an_index_is_refused(tmp_path, tensors):
    path = write(tmp_path / "c", tensors, shards=2)
    (path / "model.safetensors").write_bytes((write(tmp_path / "d", tensors) / "model.safetensors").read_bytes())
    refused(path, "Remove the one that is stale")


def test_a_pickle_is_refused_with_the_way_to_convert_it(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c/pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    refused(tmp_path / "c", "Opening a pickle can run any program.*save_pretrained")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adapter_model.safetensors", "LoRA adapter"),
        ("vector.json", "is a vector, not a checkpoint"),
        ("model.gguf", "only model.gguf"),
        ("notes.txt", "no weights at all"),
    ],
)
def test_other_directories_are_told_apart(tmp_path, name, message):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / name).write_text("{}")
    refused(tmp_path / "c", message)


def test_what_is_no_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "is a file; name the directory")
    refused(tmp_path / "nowhere", "does not exist")


# symbolic links


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_link_that_leaves_the_directory_is_refused_unless_asked_for(tmp_path, tensors, name):
    path = write(tmp_path / "c", tensors)
    (path / name).rename(tmp_path / "elsewhere")
    (path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"--follow-links"):
        open_checkpoint(path).small_files()
    assert open_checkpoint(path, follow_links=True).small_files() == ["config.json"]


def test_a_link_inside_the_directory_and_to_the_directory_are_fine(tmp_path, tensors):
    path = write(tmp_path / "c", tensors)
    (path / "model.safetensors").rename(path / "data.bin")
    (path / "model.safetensors").symlink_to("data.bin")
    (tmp_path / "name").symlink_to(path)
    assert open_checkpoint(tmp_path / "name").tensors.keys() == tensors.keys()


def test_the_layout_of_the_hub_cache_is_followed(tmp_path, tensors):
    repository = tmp_path / "models--owner--name"
    snapshot = write(repository / "snapshots" / ("a" * 40), tensors)
    (repository / "blobs").mkdir()
    for name in ("model.safetensors", "config.json"):
        (snapshot / name).rename(repository / "blobs" / ("b" * 64 + name[0]))
        (snapshot / name).symlink_to(f"../../blobs/{'b' * 64 + name[0]}")
    assert open_checkpoint(snapshot).small_files() == ["config.json"]
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("/etc/passwd")
    with pytest.raises(CheckpointError, match="outside of"):
        open_checkpoint(snapshot).small_files()


def test_a_dangling_link_is_an_interrupted_download(tmp_path, tensors):
    path = write(tmp_path / "c", tensors)
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").symlink_to("nothing")
    refused(path, "is a link to a file that does not exist")


# configuration and the Hub


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1, "a": 2}', "[" * 100_000])
def test_a_broken_configuration_is_a_clear_error(tmp_path, tensors, text):
    path = write(tmp_path / "c", tensors)
    (path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        _ = open_checkpoint(path).config


def test_offline_never_asks_the_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="no directory owner/name.*going online was forbidden"):
        locate_checkpoint("owner/name", offline=True)


def test_a_directory_wins_over_a_hub_id(tmp_path, tensors, monkeypatch):
    write(tmp_path / "owner" / "name", tensors)
    monkeypatch.chdir(tmp_path)
    assert locate_checkpoint("owner/name").tensors.keys() == tensors.keys()


def test_unreadable_weights_are_a_clear_error(tmp_path, tensors):
    path = write(tmp_path / "c", tensors)
    (path / "model.safetensors").unlink()
    os.mkfifo(path / "other")
    (path / "model.safetensors").mkdir()
    refused(path, "cannot be read: it is a directory")


@pytest.mark.parametrize(
    ("name", "layer"),
    [("model.layers.11.mlp.w", 11), ("transformer.h.3.attn.c_attn.weight", 3), ("lm_head.weight", None),
     ("model.layers.2.experts.7.w1", 2), ("blocks.0.x", 0), ("layer_norm2.weight", None)],
)  # fmt: skip
def test_the_layer_is_the_first_number_among_the_components(name, layer):
    assert layer_of(name) == layer


def test_a_checkpoint_without_tensors_is_refused(tmp_path):
    refused(write(tmp_path / "c", {}), "no tensors")


def test_a_hub_id_is_found_in_the_cache_with_its_revision(tmp_path, tensors, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--name"
    for revision, commit in (("main", "a" * 40), ("v2", "b" * 40)):
        snapshot = write(repository / "snapshots" / commit, tensors if revision == "main" else random_tensors(1))
        (repository / "blobs").mkdir(exist_ok=True)
        blob = repository / "blobs" / (commit[0] * 64)
        (snapshot / "model.safetensors").rename(blob)
        (snapshot / "model.safetensors").symlink_to(f"../../blobs/{blob.name}")
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / revision).write_text(commit)
    monkeypatch.chdir(tmp_path)
    assert locate_checkpoint("owner/name", offline=True).revision == "a" * 40
    assert locate_checkpoint("owner/name@v2", offline=True).revision == "b" * 40
    described = describe_checkpoint(locate_checkpoint("owner/name@v2", offline=True), {})
    assert described["location"] == "owner/name@v2"
    assert described["files"]["model.safetensors"]["sha256"] == "b" * 64
