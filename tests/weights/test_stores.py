"""Checkpoints and vectors in object stores, against a real S3 server (moto) on this machine: what is read is streamed
and refused as local files are, and what is written is whole or not at all and equal to local outputs byte for byte."""

import json
import os
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from reasonvec.errors import CheckpointError, OutputError, UsageError
from reasonvec.weights import apply, check, compare, extract, inspect, stores, transfer, verify
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
    return Bucket(server, f"b{abs(hash(request.node.nodeid))}")


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
