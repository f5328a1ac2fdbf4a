"""`import dcp`: what torch.distributed.checkpoint writes comes out bit for bit as transformers loads it; nothing in it
is run, and nothing that is missing, doubled or out of place goes unseen. torch writes and loads, and is the oracle.
"""

import io
import json
import os
import pickle
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from reasonvec.errors import CheckpointError, IncompatibleError, OutputError, ReasonvecError, UsageError
from reasonvec.interchange import import_dcp
from reasonvec.weights import extract
from tests.checkpoints import everything_under, read
from tests.interchange.models import gpt2, load, quiet, qwen2, torch, write_model, write_moved

dcp = pytest.importorskip("torch.distributed.checkpoint")

Q0 = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(params=[torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
def model(request, tmp_path):
    """The path of a base, and a trained state."""
    return made(tmp_path, request.param)


def made(tmp_path, dtype=torch.bfloat16, *, tied=False):
    base = write_model(tmp_path / "base", qwen2(tied=tied), dtype)
    return base, load(write_moved(tmp_path / "tuned", base)).state_dict()


def save(path, state):
    with quiet():
        dcp.save(state, checkpoint_id=path)
    return path


def same(path, state):
    found = load(path).state_dict()
    assert found.keys() == state.keys()
    for name, weight in state.items():
        assert found[name].dtype == weight.dtype
        assert torch.equal(found[name], weight), name


NESTINGS = {
    "": lambda state: state,
    "model.": lambda state: {"model": state, "optim": {"lr": 0.1, "state": {Q0: {"exp_avg": state[Q0]}}}},
    "state_dict.": lambda state: {"state_dict": state},
    "state.model.": lambda state: {"state": {"model": state, "step": 3}},
    "module.": lambda state: {f"module.{name}": weight for name, weight in state.items()},
}


@pytest.mark.parametrize("prefix", NESTINGS)
def test_the_weights_come_out_bit_for_bit_wherever_they_are_nested(tmp_path, model, prefix):
    base, state = model
    directory = save(tmp_path / "dcp", NESTINGS[prefix](state))
    imported = import_dcp(directory, like=base, out=tmp_path / "out")
    same(tmp_path / "out", state)
    assert imported.prefix == (prefix or "(nothing)")
    assert (tmp_path / "out/config.json").read_bytes() == (base / "config.json").read_bytes()
    assert extract(tuned=tmp_path / "out", base=base, out=tmp_path / "vector").vector.deltas


def test_names_without_the_prefix_of_the_base_get_it(tmp_path):
    base = write_model(tmp_path / "base", gpt2())
    state = load(write_moved(tmp_path / "tuned", base)).state_dict()
    inner = {name.removeprefix("transformer."): weight for name, weight in state.items() if name != "lm_head.weight"}
    imported = import_dcp(save(tmp_path / "dcp", {"model": inner}), like=base, out=tmp_path / "out")
    assert imported.prefix == "model."
    same(tmp_path / "out", state)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """A model that two processes sharded with FSDP2, in both flavours, with what torch says that it holds."""
    root = tmp_path_factory.mktemp("sharded")
    base = write_model(root / "base", qwen2(), torch.bfloat16)
    script = Path(__file__).parent / "dcp_two_ranks.py"
    commands = [[sys.executable, str(script), str(rank), str(base), str(root)] for rank in (0, 1)]
    ranks = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for c in commands]
    try:
        said = [rank.communicate(timeout=120)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], said
    return root, base, torch.load(root / "expected.pt", weights_only=True)


@pytest.mark.parametrize("flavour", ["distcp", "safetensors"])
def test_shards_of_two_processes_are_put_together(sharded, tmp_path, flavour):
    root, base, expected = sharded
    assert len(list((root / flavour).glob("*.distcp" if flavour == "distcp" else "*.safetensors"))) == 2
    imported = import_dcp(root / flavour, like=base, out=tmp_path / "out")
    same(tmp_path / "out", expected)
    if flavour == "distcp":
        assert "optim.state.lm_head.weight.exp_avg" in imported.ignored and "step" in imported.ignored
        assert "under optim, step" in imported.warnings[0]


def test_a_rank_that_is_missing_is_found(sharded, tmp_path):
    root, base, _ = sharded
    for flavour, words in (("distcp", "is missing"), ("safetensors", "do not make them up|shape")):
        copy = tmp_path / flavour
        copy.mkdir()
        files = sorted(file for file in (root / flavour).iterdir())
        for file in files[:-1] if flavour == "safetensors" else [f for f in files if f.name != "__1_0.distcp"]:
            (copy / file.name).write_bytes(file.read_bytes())
        with pytest.raises((CheckpointError, IncompatibleError), match=words):
            import_dcp(copy, like=base, out=tmp_path / "out")


def test_dtype_rounds_once_and_the_configuration_says_so(tmp_path):
    base, state = made(tmp_path, torch.float32)
    directory = save(tmp_path / "dcp", {"model": state})
    import_dcp(directory, like=base, out=tmp_path / "out", dtype="bfloat16")
    same(tmp_path / "out", {name: weight.to(torch.bfloat16) for name, weight in state.items()})
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"


def test_a_float32_master_copy_of_a_bfloat16_base_stays_float32(tmp_path):
    base, state = made(tmp_path)
    state = {name: weight.float() * 1.001 for name, weight in state.items()}
    import_dcp(save(tmp_path / "dcp", state), like=base, out=tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "float32"
    same(tmp_path / "out", state)


def test_several_dtypes_are_kept_and_the_finest_is_named(tmp_path):
    base, state = made(tmp_path)
    state["model.norm.weight"] = state["model.norm.weight"].float()
    imported = import_dcp(save(tmp_path / "dcp", state), like=base, out=tmp_path / "out")
    assert "several dtypes (bfloat16, float32)" in imported.warnings[0]
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "float32"
    assert read(tmp_path / "out")["model.norm.weight"].dtype == np.float32
    assert imported.tensors[Q0] == "bfloat16"


def test_a_view_with_strides_of_its_own_is_read_as_it_is_seen(tmp_path):
    base, state = made(tmp_path)
    state[Q0] = state[Q0].t().contiguous().t()
    assert not state[Q0].is_contiguous()
    import_dcp(save(tmp_path / "dcp", state), like=base, out=tmp_path / "out")
    same(tmp_path / "out", state)


def test_shards_have_an_index_that_transformers_reads(tmp_path):
    base, state = made(tmp_path)
    imported = import_dcp(save(tmp_path / "dcp", state), like=base, out=tmp_path / "out", max_shard_bytes=10_000)
    assert len(imported.shards) > 2
    same(tmp_path / "out", state)


@pytest.mark.parametrize("written", [True, False], ids=["both written", "one written"])
def test_a_tied_copy_is_left_to_the_configuration(tmp_path, written):
    base, state = made(tmp_path, tied=True)
    weights = {name: weight for name, weight in state.items() if written or name != "lm_head.weight"}
    import_dcp(save(tmp_path / "dcp", weights), like=base, out=tmp_path / "out")
    assert "lm_head.weight" not in read(tmp_path / "out")
    same(tmp_path / "out", state)


def test_a_tied_copy_that_training_untied_is_refused(tmp_path):
    base, state = made(tmp_path, tied=True)
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    with pytest.raises(IncompatibleError, match=r"lm_head.weight differs from .*Training has untied them"):
        import_dcp(save(tmp_path / "dcp", state), like=base, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_misfit_is_named_before_weights_are_read(tmp_path):
    base, state = made(tmp_path)
    del state["model.norm.weight"]
    state[Q0] = state[Q0][:-1].clone()
    state["model.extra.weight"] = torch.ones(3)
    state["lm_head.weight"] = torch.zeros((64, 32), dtype=torch.int64)
    before = everything_under(tmp_path)
    with pytest.raises(IncompatibleError) as caught:
        import_dcp(save(tmp_path / "dcp", {"model": state}), like=base, out=tmp_path / "out")
    for words in (
        "4 tensors differ",
        "model.norm.weight: missing; expected as model.model.norm.weight",
        f"{Q0}: shape (31, 32) in the distributed checkpoint, (32, 32) in --like",
        "model.extra.weight: in the distributed checkpoint as model.model.extra.weight",
        "lm_head.weight: dtype I64 in the distributed checkpoint, BF16 in --like",
    ):
        assert words in str(caught.value)
    assert [name for name in everything_under(tmp_path) if not name.startswith("dcp")] == before
    with pytest.raises(UsageError, match=r"--skip 'nothing\*' matches none"):
        import_dcp(tmp_path / "dcp", like=base, out=tmp_path / "out", skip=["nothing*"])


def test_an_extra_tensor_may_be_left_out_by_name(tmp_path):
    base, state = made(tmp_path)
    directory = save(tmp_path / "dcp", {**state, "model.rotary_emb.inv_freq": torch.ones(4)})
    with pytest.raises(IncompatibleError, match="rotary_emb"):
        import_dcp(directory, like=base, out=tmp_path / "out")
    imported = import_dcp(directory, like=base, out=tmp_path / "out", skip=["*.inv_freq"])
    assert imported.ignored == ("model.rotary_emb.inv_freq",)
    same(tmp_path / "out", state)


def test_of_two_whole_models_one_has_to_be_named(tmp_path):
    base, state = made(tmp_path)
    average = {name: weight * 0.5 for name, weight in state.items()}
    directory = save(tmp_path / "dcp", {"ema": average, "model": state})
    with pytest.raises(UsageError, match=r"holds 2 whole models, under the prefixes 'ema.' and 'model.'"):
        import_dcp(directory, like=base, out=tmp_path / "out")
    import_dcp(directory, like=base, out=tmp_path / "out", prefix="ema.")
    same(tmp_path / "out", average)


def test_nan_is_refused(tmp_path):
    base, state = made(tmp_path)
    state[Q0][3, 4] = float("nan")
    with pytest.raises(CheckpointError, match="holds NaN or infinity"):
        import_dcp(save(tmp_path / "dcp", state), like=base, out=tmp_path / "out")


def test_an_existing_output_is_kept_and_the_same_input_gives_the_same_bytes(tmp_path):
    base, state = made(tmp_path)
    directory = save(tmp_path / "dcp", state)
    for out in ("one", "two"):
        import_dcp(directory, like=base, out=tmp_path / out)
    with pytest.raises(OutputError, match="exists already"):
        import_dcp(directory, like=base, out=tmp_path / "one")
    import_dcp(directory, like=base, out=tmp_path / "one", force=True)
    for file in everything_under(tmp_path / "one"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_an_interrupted_import_goes_on(tmp_path, monkeypatch):
    base, state = made(tmp_path)
    directory = save(tmp_path / "dcp", state)
    import_dcp(directory, like=base, out=tmp_path / "whole", max_shard_bytes=10_000)
    monkeypatch.setattr("reasonvec.weights.output.COMMIT_BYTES", 1)
    seen = []

    def stop_after_ten(nbytes):
        seen.append(nbytes)
        if len(seen) == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_dcp(directory, like=base, out=tmp_path / "out", max_shard_bytes=10_000, progress=stop_after_ten)
    import_dcp(directory, like=base, out=tmp_path / "out", max_shard_bytes=10_000, resume=True)
    for file in everything_under(tmp_path / "whole"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


# what follows is hostile or damaged


@pytest.fixture
def written(tmp_path):
    """A base and a distributed checkpoint of it."""
    base, state = made(tmp_path)
    return base, save(tmp_path / "dcp", state)


def refused(base, directory, words):
    before = everything_under(directory.parent)
    with pytest.raises(CheckpointError, match=words):
        import_dcp(directory, like=base, out=directory.parent / "out")
    assert everything_under(directory.parent) == before


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_would_run_a_program_is_refused_and_not_run(written, tmp_path):
    base, directory = written
    (directory / ".metadata").write_bytes(pickle.dumps({"a": Evil(tmp_path / "ran")}))
    refused(base, directory, r"is a pickle, a program that its reader would run, and it names 'posix.system'")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_no_protocol_of_pickle_runs_anything(written, tmp_path, protocol):
    base, directory = written
    (directory / ".metadata").write_bytes(pickle.dumps([1, Evil(tmp_path / "ran")], protocol))
    with pytest.raises(CheckpointError):
        import_dcp(directory, like=base, out=tmp_path / "out")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", "it names 'builtins.eval'"),
        (b"(S'ls'\nios\nsystem\n.", "an operation that plain data does not need"),  # INST
        (b"\x80\x02ctorch\nSize\n)\x81}b0]q\x00r\xff\xff\xff\xff.", "no torch.distributed.checkpoint Metadata"),
        (b"\x80\x04ctorch\nSize\nK\x01b.", "it fills what is no record"),
        (b"\x80\x04K\x01)R.", "it calls what is no name"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\x00\x00.", "an operation that plain data does not need"),  # BYTEARRAY8
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\x00\x00.", "cannot be read"),  # a frame of an exabyte
        (b"", "cannot be read"),
    ],
)
def test_hostile_programs_are_refused(written, program, words):
    base, directory = written
    (directory / ".metadata").write_bytes(program)
    refused(base, directory, words)


def test_damaged_metadata_is_an_error_and_never_anything_else(written):
    base, directory = written
    whole = (directory / ".metadata").read_bytes()
    generator = random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(generator.choice((1, 1, 3))):
            data[generator.randrange(len(data))] = generator.randrange(256)
        (directory / ".metadata").write_bytes(data[: generator.choice((len(data), generator.randrange(len(data))))])
        out = directory.parent / "out"
        try:
            import_dcp(directory, like=base, out=out, force=True)
        except ReasonvecError as error:
            assert str(error).isprintable() or "\n" in str(error)


def tampered(directory, change):
    """Let torch's own classes read the metadata, change it and write it back."""
    with (directory / ".metadata").open("rb") as file:
        metadata = pickle.load(file)
    change(metadata)
    (directory / ".metadata").write_bytes(pickle.dumps(metadata))


def info_of(metadata, name=Q0):
    return next(info for index, info in metadata.storage_data.items() if index.fqn == name)


@pytest.mark.parametrize("path", ["../../x", "/etc/passwd", "..", "", "a/b", "x\0y"])
def test_storage_outside_the_directory_is_refused(written, path):
    base, directory = written
    tampered(directory, lambda metadata: setattr(info_of(metadata), "relative_path", path))
    refused(base, directory, "a path that leads elsewhere could read any file of this machine")


def test_storage_that_is_a_link_out_of_the_directory_is_refused(written, tmp_path):
    base, directory = written
    (directory / "__0_0.distcp").rename(tmp_path / "elsewhere")
    (directory / "__0_0.distcp").symlink_to(tmp_path / "elsewhere")
    refused(base, directory, "is a link to .* outside of")


@pytest.mark.parametrize(("field", "value"), [("offset", 1 << 60), ("length", 1 << 40), ("offset", -5), ("length", -1)])
def test_byte_ranges_outside_the_file_are_refused(written, field, value):
    base, directory = written
    tampered(directory, lambda metadata: setattr(info_of(metadata), field, value))
    refused(base, directory, r"at bytes .* to .* of __0_0.distcp, which has \d+")


def chunks_of(metadata, *chunks):
    """Say that a tensor has these chunks: (offsets, sizes)."""
    entry, info = metadata.state_dict_metadata[Q0], info_of(metadata)
    kind = type(entry.chunks[0])
    entry.chunks = [kind(torch.Size(offsets), torch.Size(sizes)) for offsets, sizes in chunks]
    index = next(index for index in metadata.storage_data if index.fqn == Q0)
    for offsets, _ in chunks:
        metadata.storage_data[type(index)(Q0, offsets)] = info


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([((0, 0), (17, 32)), ((16, 0), (16, 32))], r"the chunks at \(0, 0\) and \(16, 0\) overlap"),
        ([((0, 0), (32, 20)), ((0, 12), (32, 20))], r"the chunks at \(0, 0\) and \(0, 12\) overlap"),
        ([((0, 0), (16, 16)), ((0, 16), (16, 16)), ((16, 0), (16, 16)), ((16, 8), (16, 16))], "overlap"),
        ([((0, 0), (16, 32))], "its chunks hold 512 of its 1024 entries"),
        ([((0, 0), (33, 32))], r"the chunk at \(0, 0\) of \(33, 32\) leaves the shape \(32, 32\)"),
        ([((0,), (1024,))], "a chunk of 1 dimensions in a tensor of 2"),
        ([((0, 0), (1 << 40, 1 << 40))], "beyond any file"),
        ([], "its chunks hold 0 of its 1024 entries"),
    ],
)
def test_chunks_that_overlap_leave_out_or_stick_out_are_refused(written, chunks, words):
    base, directory = written
    tampered(directory, lambda metadata: chunks_of(metadata, *chunks))
    refused(base, directory, words)


def repacked(directory, data: bytes):
    """Put an archive of our own in the place of a tensor's."""
    (directory / "own.distcp").write_bytes(data)

    def change(metadata):
        info = info_of(metadata)
        info.relative_path, info.offset, info.length = "own.distcp", 0, len(data)

    tampered(directory, change)


def archive(directory, *, pickled=None, compression=zipfile.ZIP_STORED, byteorder=None, data=None):
    """The archive that torch wrote for a tensor, with parts of it changed."""
    with (directory / ".metadata").open("rb") as file:
        info = info_of(pickle.load(file))
    blob = (directory / info.relative_path).read_bytes()[info.offset :][: info.length]
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(blob)) as old, zipfile.ZipFile(result, "w", compression) as new:
        for name in old.namelist():
            changed = {"data.pkl": pickled, "byteorder": byteorder, "0": data}.get(name.rpartition("/")[2])
            new.writestr(name, old.read(name) if changed is None else changed)
    return result.getvalue()


def test_an_archive_whose_pickle_would_run_a_program_is_refused_and_not_run(written, tmp_path):
    base, directory = written
    repacked(directory, archive(directory, pickled=pickle.dumps(Evil(tmp_path / "ran"), 2)))
    refused(base, directory, "it names 'posix.system'")
    assert not (tmp_path / "ran").exists()


def test_archives_that_do_not_hold_what_they_should_are_refused(written):
    base, directory = written
    plain = archive(directory)
    for blob, words in (
        (archive(directory, compression=zipfile.ZIP_DEFLATED), "is compressed"),
        (archive(directory, byteorder=b"big"), "big-endian"),
        (archive(directory, data=b"\0" * 2046), "it has 2046 bytes, its entries reach to 2048"),
        (archive(directory, data=b"\0" * 2047), "it has 2047 bytes"),
        (archive(directory, pickled=pickle.dumps({"a": 1}, 2)), "does not hold one plain tensor"),
        (plain[:-30], "not a zip file"),
        (b"\0" * 100, "not a zip file"),
    ):
        repacked(directory, blob)
        refused(base, directory, words)
    repacked(directory, plain)
    import_dcp(directory, like=base, out=directory.parent / "out")


def test_a_flipped_bit_of_a_weight_is_found(written):
    base, directory = written
    blob = bytearray(archive(directory))
    blob[blob.index(b"byteorder") - 2000] ^= 1
    position = blob.index(b"archive/data/0") + 100
    blob[position] ^= 1
    repacked(directory, bytes(blob))
    refused(base, directory, "Bad CRC-32|cannot be read")


def test_what_is_no_distributed_checkpoint_says_what_one_is(tmp_path):
    base, _ = made(tmp_path)
    (tmp_path / "empty").mkdir()
    refused(base, tmp_path / "empty", "neither .metadata nor safetensors files. torch writes .metadata last")
    refused(base, tmp_path / "nowhere", "does not exist. A distributed checkpoint is a directory with .metadata")
