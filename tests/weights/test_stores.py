"""Checkpoints and vectors in object stores, against a real S3 server (moto) on this machine: what is read is streamed
and refused as local files are, and what is written is whole or not at all and equal to local outputs byte for byte."""

import gc
import json
import signal
import subprocess
import sys
from types import SimpleNamespace
from urllib.request import Request, urlopen

import boto3
import numpy as np
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from reasonvec.cli import main
from reasonvec.errors import CheckpointError, MissingExtraError, OutputError, UsageError, VerificationError
from reasonvec.weights import (
    Options,
    apply,
    check,
    compare,
    compress,
    extract,
    inspect,
    job,
    mirror,
    output,
    read_ahead,
    stores,
    transfer,
    transfer_sweep,
    uploads,
    verify,
)
from reasonvec.weights.checkpoint import tensor_reader
from reasonvec.weights.hub import locate_checkpoint, locate_vector, recorded_location
from tests.checkpoints import moved, random_tensors, write


@pytest.fixture(scope="session")
def server():
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


class Bucket:
    """One bucket, filled and read by boto3, which is not what the product uses."""

    def __init__(self, endpoint, name):
        self.client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1",
                                   aws_access_key_id="key", aws_secret_access_key="secret")  # fmt: skip
        self.name, self.address = name, f"s3://{name}"
        self.client.create_bucket(Bucket=name)

    def put(self, key, content):
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def upload(self, directory, prefix):
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(directory).as_posix()}", path.read_bytes())
        return f"{self.address}/{prefix}"

    def contents(self, prefix):
        found = self.client.list_objects_v2(Bucket=self.name, Prefix=f"{prefix}/").get("Contents", [])
        return {entry["Key"][len(prefix) + 1 :]: self.get(entry["Key"]) for entry in found}

    def get(self, key):
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()


@pytest.fixture
def bucket(server, request, monkeypatch, tmp_path):
    for name, value in (("AWS_ENDPOINT_URL", server), ("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret"),
                        ("AWS_DEFAULT_REGION", "us-east-1"), ("AWS_EC2_METADATA_DISABLED", "true"),
                        ("TMPDIR", str(tmp_path / "scratch"))):  # fmt: skip
        monkeypatch.setenv(name, value)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(stores, "FIRST_PAUSE", 0.0)
    forget()
    yield Bucket(server, f"b{abs(hash(request.node.nodeid))}")
    forget()


def forget():
    """The next file system is a new one: one keeps the methods and variables that it was made with."""
    stores._filesystem.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def models(tmp_path, bucket):
    """Where base, tuned and target are, on the disk and in the bucket."""
    base = random_tensors(0)
    for name, tensors in (("base", base), ("tuned", moved(base, 1)), ("target", moved(base, 2))):
        bucket.upload(write(tmp_path / name, tensors, shards=2), f"models/{name}")
    return {name: f"{bucket.address}/models/{name}" for name in ("base", "tuned", "target")}


def contents(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_inputs_in_a_store_give_the_bytes_of_local_ones(tmp_path, models):
    local = {name: tmp_path / name for name in models}
    transfer(**local, out=tmp_path / "a", alpha=0.5)
    transfer(**models, out=tmp_path / "b", alpha=0.5)
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    receipt = json.loads(b["reasonvec.json"])
    assert receipt["target"]["location"] == models["target"]
    assert receipt["fingerprint"] == json.loads(a.pop("reasonvec.json"))["fingerprint"]
    b.pop("reasonvec.json")
    assert a == b
    assert verify(tmp_path / "b").recomputed


@pytest.mark.parametrize("encoding", ["auto", "dense"])
def test_outputs_in_a_store_are_the_local_ones_byte_for_byte(tmp_path, models, bucket, encoding):
    out, local = f"{bucket.address}/out", {name: tmp_path / name for name in models}
    donors = {role: models[role] for role in ("tuned", "base")}
    extract(**donors, out=f"{out}/vector", encoding=encoding)
    extract(tuned=local["tuned"], base=local["base"], out=tmp_path / "vector", encoding=encoding)
    same(bucket.contents("out/vector"), contents(tmp_path / "vector"), "vector.json")
    options = Options(max_shard_bytes=1000)
    apply(vectors=[(f"{out}/vector", 0.7)], target=models["target"], out=f"{out}/applied", options=options)
    apply(vectors=[(tmp_path / "vector", 0.7)], target=local["target"], out=tmp_path / "applied", options=options)
    same(bucket.contents("out/applied"), contents(tmp_path / "applied"), "reasonvec.json")
    transfer(**models, alpha=0.7, out=f"{out}/transferred", options=options)
    transfer(**local, alpha=0.7, out=tmp_path / "transferred", options=options)
    same(bucket.contents("out/transferred"), contents(tmp_path / "transferred"), "reasonvec.json")
    for name, kind in (
        ("vector", "vector"),
        ("applied", "enhanced checkpoint"),
        ("transferred", "enhanced checkpoint"),
    ):
        found = verify(f"{out}/{name}")
        assert (found.path, found.kind, found.recomputed) == (f"{out}/{name}", kind, True)
    assert nothing_left(tmp_path)


def same(found, expected, document):
    """The same files with the same bytes; the document differs in where the inputs were alone."""
    theirs, ours = json.loads(found.pop(document)), json.loads(expected.pop(document))
    assert found == expected
    for part in ("files", "tensors", "options"):
        assert theirs[part] == ours[part]


def nothing_left(tmp_path):
    gc.collect()
    return not list((tmp_path / "scratch").iterdir())


def test_check_inspect_and_compare_read_a_store(tmp_path, models, bucket):
    vector = f"{bucket.address}/vector"
    extraction = extract(tuned=models["tuned"], base=models["base"], ancestor=models["target"], out=vector)
    assert extraction.to_json()["path"] == vector
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector")
    assert check(vector=vector, target=models["target"]).fits
    local, remote = inspect(tmp_path / "vector").to_json(), inspect(vector).to_json()
    assert remote["layers"] == local["layers"]
    assert compare([vector, tmp_path / "vector"]).pairs[0].overall.cosine == pytest.approx(1)
    assert inspect(vector, ancestor=models["target"]).to_json()["relation"]


def test_several_alphas_go_to_several_addresses(models, bucket):
    found = transfer_sweep(**models, alphas=[0.5, 1], out=f"{bucket.address}/out-{{alpha}}")
    assert [str(each.out) for each in found] == [f"{bucket.address}/out-0.5", f"{bucket.address}/out-1"]
    assert bucket.contents("out-0.5").keys() == bucket.contents("out-1").keys()


def test_compress_reads_and_writes_a_store(models, bucket):
    vector, small = f"{bucket.address}/vector", f"{bucket.address}/small"
    extract(tuned=models["tuned"], base=models["base"], out=vector)
    assert compress(vector=vector, out=small, density=0.5).to_json()["path"] == small
    assert verify(small, checksums_only=True).kind == "vector"


def test_a_cluster_writes_to_no_store(models, bucket):
    with pytest.raises(UsageError, match="--ray writes to storage that all nodes share, and s3://.*leave --ray out"):
        transfer(**models, out=f"{bucket.address}/out", ray="auto")
    assert not bucket.contents("out")


def test_tensor_data_is_read_once_and_in_long_runs(tmp_path, bucket, monkeypatch):
    tensors = {"a.weight": np.random.default_rng(0).random((3 << 20, 2), np.float32)}
    path = write(tmp_path / "large", tensors)
    target = bucket.upload(path, "large")
    reads = []
    original = stores.RemoteFile.read

    def read(file, start, stop):
        if file.name == "model.safetensors":
            reads.append(stop - start)
        return original(file, start, stop)

    monkeypatch.setattr(stores.RemoteFile, "read", read)
    transfer(tuned=path, base=path, target=target, out=tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").read_bytes() == (path / "model.safetensors").read_bytes()
    data = [size for size in reads if size > 1 << 18]
    assert sum(data) == 24 << 20
    assert max(data) == read_ahead.WINDOW
    assert len(reads) - len(data) < 8  # the header, and glances at the matrix


def test_a_large_shard_goes_up_in_parts(tmp_path, bucket, monkeypatch):
    monkeypatch.setattr(uploads, "PART_BYTES", 5 << 20)
    path = write(tmp_path / "large", {"a.weight": np.random.default_rng(0).random((3 << 20, 1), np.float32)})
    transfer(tuned=path, base=path, target=path, out=f"{bucket.address}/out")
    assert bucket.contents("out")["model.safetensors"] == (path / "model.safetensors").read_bytes()
    etag = bucket.client.head_object(Bucket=bucket.name, Key="out/model.safetensors")["ETag"]
    assert etag.endswith('-3"')
    assert verify(f"{bucket.address}/out").recomputed


# what is refused


def test_every_refusal_of_local_files_holds_for_a_store(tmp_path, models, bucket):
    shard = "models/target/model-00001-of-00002.safetensors"
    whole = bucket.get(shard)
    index = json.loads(bucket.get("models/target/model.safetensors.index.json"))

    def refused(message):
        with pytest.raises(CheckpointError, match=message) as caught:
            locate_checkpoint(models["target"])
        assert str(caught.value).startswith(models["target"])

    for content, message in (
        (whole[:-7], "It was cut off or damaged"),
        (whole[:5], "is 5 bytes long: too short"),
        (b"", "is 0 bytes long: too short"),
        (b"\xff" * 8 + whole[8:], "claims a header of"),
        (whole + b"x", "bytes after"),
        (whole.replace(b'"BF16"', b'"PICK"', 1), "which is none of the safetensors format's"),
    ):
        bucket.put(shard, content)
        refused(message)
    bucket.put(shard, whole)
    for name in ("../base/model.safetensors", "/etc/passwd"):
        weight_map = index["weight_map"] | {"model.norm.weight": name}
        bucket.put("models/target/model.safetensors.index.json", json.dumps({"weight_map": weight_map}).encode())
        refused("a path that leads elsewhere")


@pytest.mark.parametrize("key", ["../evil.json", "a/../../evil.json", "a//b.json", "a\u202eb.json", "./x.json"])
def test_a_key_that_could_lead_out_of_the_mirror_is_refused(tmp_path, models, bucket, key):
    bucket.put(f"models/target/{key}", b"{}")
    with pytest.raises(CheckpointError, match="could lead to any file of this machine, so it is refused"):
        locate_checkpoint(models["target"])
    assert nothing_left(tmp_path)


def test_a_small_file_that_is_not_small_is_refused(models, bucket, monkeypatch):
    monkeypatch.setattr(mirror, "MAX_SMALL_FILE", 10)
    with pytest.raises(CheckpointError, match=r"config.json has \d+ bytes; at most 10 are fetched"):
        locate_checkpoint(models["target"])


def test_pickles_are_refused_and_never_fetched(bucket, monkeypatch):
    bucket.put("p/pytorch_model.bin", b"cos\nsystem\n")
    monkeypatch.setattr(stores.RemoteFile, "read", None)
    with pytest.raises(CheckpointError, match=f"{bucket.address}/p holds pickled weights"):
        locate_checkpoint(f"{bucket.address}/p")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://host/x", "begins with ftp://, which is not read. Known are s3://, gs://, hf://, paths"),
        ("s3://", "does not name one place"),
        ("s3://bucket/../other", "does not name one place"),
        ("s3://bucket/a*", "or wildcards"),
    ],
)
def test_an_address_names_one_place_of_a_known_store(address, message):
    with pytest.raises(UsageError, match=message):
        locate_checkpoint(address)
    with pytest.raises(UsageError, match=message):
        transfer(tuned="a", base="b", target="c", out=address)


def test_what_is_not_there_is_named(bucket, models, tmp_path):
    with pytest.raises(CheckpointError, match="s3://no-such-bucket/x does not exist"):
        locate_checkpoint("s3://no-such-bucket/x")
    with pytest.raises(CheckpointError, match="models/no does not exist: the store lists nothing below it"):
        locate_vector(f"{bucket.address}/models/no")
    with pytest.raises(OutputError, match="no-such-bucket/x/.reasonvec-partial does not exist: the store has no such"):
        run_local(tmp_path, "s3://no-such-bucket/x")


@pytest.fixture
def locked(server, models):
    """From here on the server lets nobody in whose key it does not know."""
    allow(server, 0)
    yield
    allow(server, 10**9)


def allow(server, requests):
    """How many more requests the server answers without asking who it is."""
    body = Request(f"{server}/moto-api/reset-auth", data=str(requests).encode(), headers={"Content-Type": "text/plain"})
    urlopen(body).close()


def test_denied_access_is_named_for_inputs_and_outputs(bucket, models, tmp_path, locked):
    with pytest.raises(
        CheckpointError, match="target cannot be opened: the store denies access .*lack the right.*AWS_"
    ):
        locate_checkpoint(models["target"])
    with pytest.raises(OutputError, match="out cannot be opened: the store denies access"):
        run_local(tmp_path, f"{bucket.address}/out")


def test_a_store_that_takes_nothing_is_found_before_the_work(bucket, models, tmp_path, monkeypatch):
    def denied(*arguments, **keywords):
        raise PermissionError("read only")

    monkeypatch.setattr(stores.filesystem(bucket.address), "pipe_file", denied)
    monkeypatch.setattr(job.Job, "works", None)  # would fail if a tensor were begun
    with pytest.raises(OutputError, match="partial cannot be opened: the store denies access .read only"):
        run_local(tmp_path, f"{bucket.address}/out")
    assert nothing_left(tmp_path)


def run_local(tmp_path, out, **options):
    donors = {name: tmp_path / name for name in ("tuned", "base", "target")}
    for path in donors.values():
        if not path.exists():
            write(path, random_tensors(0))
    return transfer(**donors, out=out, options=Options(max_shard_bytes=1000), **options)


def test_missing_credentials_are_named_with_the_way_to_give_them(bucket, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(CheckpointError, match="no credentials for s3:// were found. Set AWS_ACCESS_KEY_ID and"):
        locate_checkpoint(f"{bucket.address}/x")


def test_a_store_that_does_not_answer_is_asked_again_and_then_named(bucket, models, tmp_path, monkeypatch):
    original, faults = s3fs.S3FileSystem._cat_file, iter(range(3))

    async def failing(self, *arguments, **keywords):
        if next(faults, None) is not None:
            raise ConnectionError("reset by peer")
        return await original(self, *arguments, **keywords)

    monkeypatch.setattr(s3fs.S3FileSystem, "_cat_file", failing)
    locate_checkpoint(models["target"])
    faults = iter(range(10**6))
    with pytest.raises(CheckpointError, match=r"s3://.* cannot be reached: ConnectionError: reset by peer .4 attempts"):
        locate_checkpoint(models["target"])


def test_offline_forbids_every_store(models, bucket):
    forbidden = "is in a store and going online was forbidden"
    with pytest.raises(CheckpointError, match=forbidden):
        locate_checkpoint(models["base"], offline=True)
    with pytest.raises(CheckpointError, match=forbidden):
        verify(models["base"], offline=True)
    with pytest.raises(CheckpointError, match=forbidden):
        transfer(tuned="a", base="b", target="c", out=f"{bucket.address}/out", offline=True)


def test_a_missing_package_is_an_error_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(
        MissingExtraError, match=r'gs://bucket/x needs the package gcsfs.*pip install "reasonvec\[stores\]"'
    ):
        locate_checkpoint("gs://bucket/x")


def test_local_paths_never_import_fsspec(tmp_path):
    write(tmp_path / "a", random_tensors(0))
    code = ("import sys; from reasonvec.weights import transfer; "
            f"transfer(tuned={str(tmp_path / 'a')!r}, base={str(tmp_path / 'a')!r}, target={str(tmp_path / 'a')!r}, "
            f"out={str(tmp_path / 'out')!r}); print([m for m in ('fsspec', 's3fs') if m in sys.modules])")  # fmt: skip
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


# what changes under the run


def test_an_object_that_changes_during_the_run_is_noticed(models, bucket, tmp_path):
    shard = "models/target/model-00001-of-00002.safetensors"
    content = bytearray(bucket.get(shard))
    content[-1] ^= 1

    with pytest.raises(CheckpointError, match=f"{shard} changed while it was being read"):
        transfer(**models, out=tmp_path / "out", progress=lambda nbytes: bucket.put(shard, bytes(content)))
    assert not (tmp_path / "out").exists()


def test_an_object_that_is_cut_during_the_run_is_noticed(models, bucket, tmp_path):
    checkpoint = locate_checkpoint(models["target"])
    entry = checkpoint.tensors["model.norm.weight"]
    bucket.put(entry.path.address.removeprefix(f"{bucket.address}/"), b"short")
    with (
        pytest.raises(CheckpointError, match="was cut or replaced while it was being read|cannot be reached"),
        tensor_reader() as reader,
    ):
        reader.read_into(entry, 0, memoryview(bytearray(entry.nbytes)))


# crash-safe


def contents_of(bucket, prefix):
    return {name: content for name, content in bucket.contents(prefix).items() if name != "reasonvec.json"}


def test_an_interrupted_run_looks_unfinished_and_resumes(bucket, models, tmp_path, monkeypatch):
    monkeypatch.setattr(output, "COMMIT_BYTES", 1)
    run_local(tmp_path, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    out, calls, original = f"{bucket.address}/out", iter(range(100)), job.Job.work
    done = []

    def work(self, name, reader, sinks):
        done.append(name)
        if next(calls) == 5:
            raise KeyboardInterrupt
        return original(self, name, reader, sinks)

    monkeypatch.setattr(job.Job, "work", work)
    with pytest.raises(KeyboardInterrupt):
        run_local(tmp_path, out, workers=1)
    assert {"model-00001-of-00006.safetensors", ".reasonvec-partial"} <= bucket.contents("out").keys()
    assert not {"reasonvec.json", "config.json"} & bucket.contents("out").keys()
    with pytest.raises(CheckpointError, match=f"{out} is not finished"):
        locate_checkpoint(out)
    with pytest.raises(OutputError, match="holds an unfinished run"):
        run_local(tmp_path, out)
    run_local(tmp_path, out, workers=1, resume=True)
    assert len(done) == 9  # each tensor once, and the one that was interrupted again
    assert contents_of(bucket, "out") == {name: expected[name] for name in expected if name != "reasonvec.json"}
    assert verify(out).recomputed
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("instant", range(1, 9))
def test_a_kill_between_any_two_uploads_leaves_nothing_that_looks_whole(bucket, models, tmp_path, instant):
    out = f"{bucket.address}/out"
    run_local(tmp_path, tmp_path / "whole")
    code = (
        "import os, signal, sys\nfrom reasonvec.weights import Options, output, transfer, uploads\n"
        "output.COMMIT_BYTES, calls, put = 1, 0, uploads.Uploads._put\n"
        "def counted(self, path, address):\n"
        "    global calls\n    calls += 1\n"
        f"    if calls == {instant} and {instant % 2}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    found = put(self, path, address)\n"
        f"    if calls == {instant}: os.kill(os.getpid(), signal.SIGKILL)\n    return found\n"
        "uploads.Uploads._put = counted\n"
        f"transfer(tuned={str(tmp_path / 'tuned')!r}, base={str(tmp_path / 'base')!r}, "
        f"target={str(tmp_path / 'target')!r}, out={out!r}, options=Options(max_shard_bytes=1000))\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = bucket.contents("out")
    if "reasonvec.json" not in left:
        with pytest.raises(CheckpointError, match="is not finished"):
            locate_checkpoint(out)
    run_local(tmp_path, out, resume=True)
    expected = contents(tmp_path / "whole")
    assert contents_of(bucket, "out") == {name: expected[name] for name in expected if name != "reasonvec.json"}
    assert ".reasonvec-partial" not in bucket.contents("out")


def test_an_upload_that_fails_keeps_what_was_made(bucket, models, tmp_path, monkeypatch):
    out, original = f"{bucket.address}/out", s3fs.S3FileSystem._put_file

    async def failing(self, lpath, rpath, **keywords):
        if "00003" in rpath and full:
            raise PermissionError("quota exceeded")
        await original(self, lpath, rpath, **keywords)

    monkeypatch.setattr(s3fs.S3FileSystem, "_put_file", failing)
    full = True
    with pytest.raises(
        OutputError, match=r"out could not be written: .*quota exceeded.* is kept in .*--resume"
    ) as caught:
        run_local(tmp_path, out)
    assert str(tmp_path / "scratch") in str(caught.value)
    assert "reasonvec.json" not in bucket.contents("out")
    full = False
    run_local(tmp_path, out, resume=True)
    assert verify(out).recomputed


def test_a_run_that_fails_takes_back_what_it_sent(bucket, models, tmp_path):
    broken = random_tensors(0)
    broken["model.norm.weight"][0] = np.nan  # the last name
    write(tmp_path / "target", broken) if not (tmp_path / "target").exists() else None
    target = write(tmp_path / "broken", broken)
    with pytest.raises(CheckpointError, match="nan"):
        transfer(tuned=tmp_path / "tuned", base=tmp_path / "base", target=target, out=f"{bucket.address}/out",
                 options=Options(max_shard_bytes=600))  # fmt: skip
    assert not bucket.contents("out")
    assert nothing_left(tmp_path)


def test_what_was_sent_and_then_changed_is_not_continued(bucket, models, tmp_path, monkeypatch):
    monkeypatch.setattr(output, "COMMIT_BYTES", 1)
    out = f"{bucket.address}/out"

    def interrupt(name):
        if name == "config.json":
            raise KeyboardInterrupt

    original = uploads.Uploads.send
    monkeypatch.setattr(uploads.Uploads, "send", lambda self, name: (interrupt(name), original(self, name)))
    with pytest.raises(KeyboardInterrupt):
        run_local(tmp_path, out)
    monkeypatch.setattr(uploads.Uploads, "send", original)
    bucket.put("out/model-00001-of-00006.safetensors", b"another's")
    with pytest.raises(
        OutputError, match="00001-of-00006.safetensors is no longer what the interrupted run sent.*--force"
    ):
        run_local(tmp_path, out, resume=True)
    run_local(tmp_path, out, force=True)
    assert verify(out).recomputed


def test_an_output_in_a_store_is_never_overwritten_unless_it_is_ours_and_forced(bucket, models, tmp_path):
    out = f"{bucket.address}/out"
    bucket.put("out/thesis.tex", b"years of work")
    with pytest.raises(OutputError, match="exists already and is never overwritten.*--force"):
        run_local(tmp_path, out)
    with pytest.raises(OutputError, match="was not made by reasonvec"):
        run_local(tmp_path, out, force=True)
    assert bucket.contents("out") == {"thesis.tex": b"years of work"}
    out = f"{bucket.address}/ours"
    run_local(tmp_path, out)
    bucket.put("ours/stale.safetensors", b"of an earlier run")
    with pytest.raises(OutputError, match="exists already"):
        run_local(tmp_path, out)
    run_local(tmp_path, out, force=True)
    assert "stale.safetensors" not in bucket.contents("ours")
    assert verify(out).recomputed


def test_the_beginning_of_another_machines_output_is_told_apart(bucket, models, tmp_path):
    bucket.put("out/.reasonvec-partial", b"")
    with pytest.raises(OutputError, match="holds the beginning of an output.*not on this machine"):
        run_local(tmp_path, f"{bucket.address}/out")
    run_local(tmp_path, f"{bucket.address}/out", force=True)
    assert verify(f"{bucket.address}/out").recomputed


def test_an_output_may_not_lie_in_an_input(bucket, models):
    for out in (models["target"], f"{models['target']}/out", f"{bucket.address}/models"):
        with pytest.raises(OutputError, match="one lies in the other"):
            transfer(**models, out=out, force=True)


def test_verify_of_a_changed_output_names_its_address(bucket, models, tmp_path):
    out = f"{bucket.address}/out"
    run_local(tmp_path, out)
    for name in ("config.json", "model-00002-of-00006.safetensors"):
        before = bucket.get(f"out/{name}")
        bucket.put(f"out/{name}", before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(VerificationError, match=f"{out}/{name}"):
            verify(out)
        bucket.put(f"out/{name}", before)
    bucket.put("out/more.json", b"{}")
    with pytest.raises(VerificationError, match=f"{out}/more.json was not there when {out} was made"):
        verify(out)


def test_the_command_line_reads_and_writes_addresses(bucket, models, capsys):
    out = f"{bucket.address}/vector"
    assert main(["extract", "--tuned", models["tuned"], "--base", models["base"], "--out", out, "--json"],
                standalone_mode=False) in (None, 0)  # fmt: skip
    assert json.loads(capsys.readouterr().out)["path"] == out
    main(["verify", out, "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["path"] == out


# hf://, whose server is not here


def test_an_address_on_the_hub_is_read_at_one_commit(monkeypatch):
    import huggingface_hub
    from huggingface_hub import hf_file_system

    place = hf_file_system.HfFileSystemResolvedRepositoryPath("model", "owner/name", "main", "sub")
    monkeypatch.setattr(hf_file_system.HfFileSystem, "resolve_path", lambda self, path, **keywords: place)
    info = SimpleNamespace(sha="c" * 40)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda self, *arguments, **keywords: info)
    found, commit = stores.pinned(stores.remote_directory("hf://owner/name/sub"))
    assert str(found) == f"hf://owner/name@{'c' * 40}/sub"
    assert commit == "c" * 40
    assert recorded_location({"location": str(found), "revision": commit}) == str(found)
