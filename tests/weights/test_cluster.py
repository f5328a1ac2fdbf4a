"""`--ray`: the nodes of a real cluster give the bytes of a local run, through kills of workers, a node and the driver.

Nodes are processes of this machine, so that all of them share its storage; what is not shared is simulated.
"""

import contextlib
import errno
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from reasonvec.cli import main
from reasonvec.errors import CheckpointError, ClusterError, MissingExtraError, OutputError, UsageError
from reasonvec.weights import Options, apply_sweep, cluster, extract, output, transfer, transfer_sweep
from reasonvec.weights.application import plan_transfer
from reasonvec.weights.cluster import Nodes, Run, connected, write_run
from reasonvec.weights.job import Threads
from reasonvec.weights.provenance import input_identity, tool
from tests.checkpoints import everything_under, moved, random_tensors, write
from tests.weights.test_output import contents

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).parents[2]
SECONDS = 60
"""More than anything here takes; a wait that lasts longer has failed."""


def child_environment():
    """For a process that finds what this one finds."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


class Node:
    """`ray start` and all that it starts, in a session of its own."""

    def __init__(self, scratch, *arguments):
        environment = child_environment() | {"RAY_TMPDIR": str(scratch), "RAY_USAGE_STATS_ENABLED": "0"}
        common = ("--block", "--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats")
        with (scratch / "log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", *common, *arguments],
                env=environment, start_new_session=True, stdout=log, stderr=log,
            )  # fmt: skip

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(SECONDS)
        finally:
            self.kill()

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def until(condition, what):
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() < begin + SECONDS, f"{what} takes too long"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def scratch():
    path = Path(tempfile.mkdtemp(prefix="rv"))  # short, since the paths of Unix sockets must be
    yield path
    assert not processes_that_mention(path)
    shutil.rmtree(path)


def processes_that_mention(path):
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if str(path).encode() in (process / "cmdline").read_bytes():
                found.append(process.name)
    return found


@pytest.fixture(scope="module")
def client_port():
    """Where the cluster takes in drivers that are none of its nodes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def nodes(scratch, client_port):
    """A head and a second node."""
    ports = ("--port=0", f"--ray-client-server-port={client_port}")
    found = [Node(scratch, "--head", *ports, "--include-dashboard=false")]
    try:
        file = scratch / "ray/ray_current_cluster"
        until(lambda: file.exists() and file.read_text().strip(), "the start of the head")
        found.append(Node(scratch, f"--address={file.read_text().strip()}"))
        yield found
    finally:
        for node in reversed(found):
            node.stop()


@pytest.fixture(scope="module")
def address(nodes, scratch):
    """Of the cluster, to which this process stays connected: each new connection would start new workers."""
    address = (scratch / "ray/ray_current_cluster").read_text().strip()
    with connected(address, None):
        until(lambda: len(ray.nodes()) == 2, "the start of the second node")
        yield address


@pytest.fixture
def root(tmp_path):
    base = random_tensors(0) | {"model.big.weight": np.zeros((600, 500), np.float16)}  # of two blocks
    for name, tensors in (("base", base), ("tuned", moved(base, 1)), ("target", moved(base, 2))):
        write(tmp_path / name, tensors)
    return tmp_path


def paths(root):
    return {name: root / name for name in ("tuned", "base", "target")}


def run_job(root, out, executor, hook=None, *, resume=False, progress=lambda nbytes: None):
    """`transfer` with a `hook` around what a node does to plan the job."""
    job = plan_transfer(**paths(root), alphas=[0.7], options=Options(max_shard_bytes=900))
    if hook:
        job.again = partial(hook, job.again)
    job.run([out], executor=executor, dry_run=False, resume=resume, force=False, progress=progress)


def command(root, address, *options):
    """`reasonvec transfer` in a process of its own."""
    donors = ("--tuned", root / "tuned", "--base", root / "base", "--target", root / "target")
    return subprocess.run(
        [sys.executable, "-m", "reasonvec", "transfer", *donors, "--out", root / "out", "--ray", address, *options],
        env=child_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip


def local(root):
    """The files of the same job without a cluster."""
    run_job(root, root / "local", Threads(2))
    return contents(root / "local")


# --- same bytes ---


@pytest.mark.parametrize("shard_bytes", [900, 10**9], ids=["shards", "one-shard"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_transfer_gives_the_bytes_of_a_local_run(root, address, rounding, shard_bytes):
    options = Options(rounding=rounding, seed=3, max_shard_bytes=shard_bytes)
    transfer(**paths(root), alpha=0.7, out=root / "local", options=options)
    done = []
    transfer(**paths(root), alpha=0.7, out=root / "out", options=options, ray=address, progress=done.append)
    assert contents(root / "out") == contents(root / "local")
    assert sum(done) == sum(t.nbytes for t in random_tensors(0).values()) + 600 * 500 * 2
    assert len(done) > 1


def test_several_alphas_give_the_bytes_of_local_runs(root, address):
    extract(tuned=root / "tuned", base=root / "base", out=root / "vector")
    for name, options in (("local", {}), ("out", {"ray": address})):
        apply_sweep(vectors=[(root / "vector", None), (root / "vector", 0.1)], alphas=[0, 0.5, 1], **options,
                    target=root / "target", out=f"{root}/apply-{name}-{{alpha}}")  # fmt: skip
        transfer_sweep(**paths(root), alphas=[0, 0.5, 1], out=f"{root}/transfer-{name}-{{alpha}}", **options)
    for operation in ("apply", "transfer"):
        for alpha in ("0", "0.5", "1"):
            assert contents(root / f"{operation}-out-{alpha}") == contents(root / f"{operation}-local-{alpha}")


def test_relative_paths_mean_the_directory_of_the_command(root, address, monkeypatch):
    expected = local(root)
    monkeypatch.chdir(root)
    donors = ("--tuned", "tuned", "--base", "base", "--target", "target", "--alpha", "0.7")
    result = CliRunner().invoke(
        main, ["transfer", *donors, "--max-shard-size", "900", "--out", "out", "--ray", address], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    assert contents(root / "out") == expected


def test_a_driver_that_is_no_node_gives_the_bytes_of_a_local_run(root, address, client_port):
    pytest.importorskip("grpc")  # of ray[client]
    result = command(root, f"ray://127.0.0.1:{client_port}", "--alpha", "0.7", "--max-shard-size", "900")
    assert result.returncode == 0, result.stderr
    assert contents(root / "out") == local(root)


def witness(notes, again):
    """Go on when both nodes have begun a task."""
    job = again()
    (notes / ray.get_runtime_context().get_node_id()).touch()
    until(lambda: len(list(notes.iterdir())) == 2, "the other node's task")
    return job


def test_both_nodes_do_their_share(root, address):
    (root / "notes").mkdir()
    with connected(address, None) as executor:
        run_job(root, root / "out", executor, partial(witness, root / "notes"))
    assert {path.name for path in (root / "notes").iterdir()} == {node["NodeID"] for node in ray.nodes()}
    assert contents(root / "out") == local(root)


def test_a_run_lies_in_one_shard_and_every_tensor_in_one_run(root):
    job = plan_transfer(**paths(root), alphas=[0.7], options=Options(max_shard_bytes=900))
    shards = job.shards()
    for count in (1, 3, 10**9):
        runs = cluster.cut(job, shards, set(job.target.tensors), count)
        assert sorted(name for run in runs for name in run.names) == sorted(job.target.tensors)
        for run in runs:
            (shard,) = (shard for shard in shards if shard.name == run.shard)
            assert run.names <= {name for name, _ in shard.places()}
    assert len(runs) == len(job.target.tensors)
    assert cluster.cut(job, shards, set(), 3) == []


# --- kills ---


class Hooked:
    """A job whose `work` is preceded by something."""

    def __init__(self, job, before):
        self._job, self._before = job, before
        job.work, self._work = self.work, job.work

    def work(self, name, reader, sinks):
        self._before(name)
        return self._work(name, reader, sinks)


def before_each(before, again):
    job = again()
    Hooked(job, before)
    return job


def die_once(marker, name):
    """Kill this process in the middle of a task: another tensor of the shard comes before this one."""
    if name == "model.norm.weight" and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_task_whose_worker_is_killed_is_repeated(root, address):
    with connected(address, None) as executor:
        run_job(root, root / "out", executor, partial(before_each, partial(die_once, root / "killed")))
    assert (root / "killed").exists()
    assert contents(root / "out") == local(root)


def die(name):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_task_that_dies_again_and_again_is_an_error(root, address, monkeypatch):
    monkeypatch.setattr(cluster, "RETRIES", 1)
    before = everything_under(root)
    with connected(address, None) as executor, pytest.raises(ClusterError) as caught:
        run_job(root, root / "out", executor, partial(before_each, die))
    assert "A task on the Ray cluster failed and cannot be repeated: " in str(caught.value)
    assert "Clear the cause, then run the same command with --resume." in str(caught.value)
    assert everything_under(root) == before


def die_when_something_is_committed(root, name):
    if name == "model.norm.weight":
        until(lambda: journal(root), "the journal")
        die(name)


def test_what_was_finished_before_a_task_was_lost_is_kept(root, address, monkeypatch):
    monkeypatch.setattr(cluster, "RETRIES", 0)
    monkeypatch.setattr(output, "COMMIT_BYTES", 1)
    with connected(address, None) as executor:
        with pytest.raises(ClusterError, match="cannot be repeated"):
            run_job(root, root / "out", executor, partial(before_each, partial(die_when_something_is_committed, root)))
        assert journal(root)
        run_job(root, root / "out", executor, resume=True)
    assert contents(root / "out") == local(root)


def wait_at_the_norm(go, name):
    while name == "model.norm.weight" and not go.exists():
        time.sleep(0.02)


def journal(root):
    file = root / ".out.reasonvec-partial/journal.jsonl"
    return [json.loads(line)[0] for line in file.read_text().splitlines()] if file.exists() else []


def driver(root, address):
    """A process of its own that is killed by the test."""
    output.COMMIT_BYTES = 1
    with connected(address, None) as executor:
        run_job(
            Path(root), Path(root, "out"), executor, partial(before_each, partial(wait_at_the_norm, Path(root, "go")))
        )


def test_a_run_whose_driver_is_killed_goes_on(root, address):
    code = "import sys; from tests.weights.test_cluster import driver; driver(*sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", code, root, address], cwd=REPOSITORY,
                               env=child_environment())  # fmt: skip
    until(lambda: len(journal(root)) >= 4, "the journal")
    process.kill()
    process.wait()
    finished = journal(root)
    (root / "go").touch()
    assert not (root / "out").exists()
    done = []
    with connected(address, None) as executor:
        run_job(root, root / "out", executor, resume=True, progress=done.append)
    sizes = {name: entry.nbytes for name, entry in plan_transfer(
        **paths(root), alphas=[0.7], options=Options()).target.tensors.items()}  # fmt: skip
    assert done[0] == sum(sizes[name] for name in finished)
    assert sum(done) == sum(sizes.values())
    assert contents(root / "out") == local(root)


def note_the_end(begun, ended, name):
    if name == "model.norm.weight":
        begun.touch()
        try:
            until(lambda: False, "cancelling this")
        finally:
            ended.touch()


def test_an_interrupted_run_cancels_its_tasks_and_goes_on(root, address):
    hook = partial(before_each, partial(note_the_end, root / "begun", root / "ended"))

    def interrupt_when_begun(nbytes):
        until((root / "begun").exists, "the task")
        raise KeyboardInterrupt

    with connected(address, None) as executor, pytest.raises(KeyboardInterrupt):
        run_job(root, root / "out", executor, hook, progress=interrupt_when_begun)
    assert (root / "ended").exists()
    assert (root / ".out.reasonvec-partial").is_dir()
    with connected(address, None) as executor:
        run_job(root, root / "out", executor, resume=True)
    assert contents(root / "out") == local(root)


# --- errors ---


def test_a_fault_in_an_input_is_the_local_error(root, address):
    broken = moved(random_tensors(0), 2) | {"model.big.weight": np.zeros((600, 500), np.float16)}
    broken["model.norm.weight"][3] = np.nan
    shutil.rmtree(root / "target")
    write(root / "target", broken)
    before = everything_under(root)
    with pytest.raises(CheckpointError, match="'model.norm.weight' of the target holds nan at entry 3") as here:
        transfer(**paths(root), out=root / "out")
    with pytest.raises(CheckpointError) as there:
        transfer(**paths(root), out=root / "out", ray=address)
    assert str(there.value) == str(here.value)
    assert type(there.value) is CheckpointError
    assert everything_under(root) == before


def full(name):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_on_a_node_is_the_local_error(root, address):
    before = everything_under(root)
    with (
        connected(address, None) as executor,
        pytest.raises(OutputError, match="could not be written: the disk is full"),
    ):
        run_job(root, root / "out", executor, partial(before_each, full))
    assert everything_under(root) == before


def elsewhere(again):
    return again.func(**again.keywords | {"tuned": "/not/mounted/here"})


def test_a_node_that_does_not_see_an_input_is_named(root, address):
    before = everything_under(root)
    with connected(address, None) as executor, pytest.raises(ClusterError) as caught:
        run_job(root, root / "out", executor, elsewhere)
    assert str(caught.value).startswith(
        f"The Ray node {platform.node()} cannot read what could be read where the command runs: /not/mounted/here does "
        f"not exist."
    )
    assert str(caught.value).endswith(
        "All nodes have to see the same files at the same paths; put inputs and output on storage that they share."
    )
    assert everything_under(root) == before


def test_a_node_without_the_same_packages_is_an_error_without_a_traceback(root, address, monkeypatch):
    module = ModuleType("installed_here_alone")
    exec("def hook(again): return again()", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with connected(address, None) as executor, pytest.raises(ClusterError) as caught:
        run_job(root, root / "out", executor, module.hook)
    assert str(caught.value) == (
        "A task on the Ray cluster failed and cannot be repeated: RaySystemError: System error: No module named "
        "'installed_here_alone'. Every node needs the same versions of Python, ray and reasonvec, and enough memory. "
        "Clear the cause, then run the same command with --resume."
    )


def order(root, **changes):
    job = plan_transfer(**paths(root), alphas=[0.7], options=Options())
    (root / "marker").touch()
    (root / "output").mkdir()
    return cluster._Order(**{
        "again": job.again, "identity": input_identity(job.inputs), "tool": tool(), "threads": 1,
        "outputs": (str(root / "output"),), "marker": str(root / "marker"), **changes,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"tool": {"name": "reasonvec", "version": "9"}},
            "has reasonvec .*, and it is 9 where the command runs. Install",
        ),
        ({"marker": "/nowhere"}, "does not see the directory of the output, .*/output. All nodes have to see the same"),
        (
            {"identity": {"/a": [5, 7]}},
            "sees another /a: no such file there, 5 bytes, changed at 7 ns where the command",
        ),
    ],
)
def test_a_node_that_is_another_than_it_should_be_is_named(root, changes, words):
    with pytest.raises(ClusterError, match=f"The Ray node {platform.node()} {words}"):
        write_run(order(root, **changes), Run("model.safetensors", frozenset()))


def test_a_node_that_sees_another_version_of_an_input_is_named(root):
    told = order(root)
    os.utime(root / "base/model.safetensors", ns=(1, 1))
    with pytest.raises(
        ClusterError, match=r"sees another .*base/model.safetensors: \d+ bytes, changed at 1 ns there, \d"
    ):
        write_run(told, Run("model.safetensors", frozenset()))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", f"[Errno {errno.ECONNREFUSED}] {os.strerror(errno.ECONNREFUSED)}"),
        ("nonsense", "Invalid address format: nonsense"),
    ],
)
def test_a_cluster_that_is_not_there_is_an_error_before_anything_is_written(root, address, reason):
    before = everything_under(root)
    result = command(root, address)
    assert result.returncode == 1
    assert result.stderr == (
        f"reasonvec: --ray {address}: there is no Ray cluster to be reached ({reason}). Start one with `ray start "
        f"--head` and on each further node `ray start --address HOST:PORT`, then run this on one of the nodes with "
        f"--ray auto, or elsewhere with --ray ray://HOST:10001.\n"
    )
    assert everything_under(root) == before


def test_a_cluster_on_which_no_task_fits_is_refused():
    def with_processors(*counts):
        return SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": {"CPU": n} if n else {}} for n in counts])

    with pytest.raises(ClusterError, match="has 2 nodes and no processor for tasks on any of them. Add a node with"):
        Nodes(with_processors(0, 0), None)
    with pytest.raises(
        UsageError, match="--workers 5 asks for as many processors on one node, .* has 4. .* ask for few"
    ):
        Nodes(with_processors(4, 2), 5)
    Nodes(with_processors(0, 4, 2), 4)


def test_without_the_package_the_extra_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r'--ray needs the package ray, .* pip install "reasonvec\[ray\]"'):
        transfer(**paths(root), out=root / "out", ray="auto")


def test_extract_has_no_such_option():
    result = CliRunner().invoke(main, ["extract", "--tuned", "a", "--base", "b", "--out", "c", "--ray", "auto"])
    assert result.exit_code == 2
    assert "No such option" in result.output


# --- last, since it takes a node away ---


def wait_on(node, begun, go, name):
    if ray.get_runtime_context().get_node_id() == node:
        begun.touch()
        until(go.exists, "the death of this node")


def test_a_task_whose_node_is_killed_is_repeated_elsewhere(root, nodes, address):
    (second,) = (n["NodeID"] for n in ray.nodes() if "node:__internal_head__" not in n["Resources"])
    hook = partial(before_each, partial(wait_on, second, root / "begun", root / "never"))

    def kill_when_begun(nbytes):
        until((root / "begun").exists, "the task")
        nodes[1].kill()

    with connected(address, None) as executor:
        run_job(root, root / "out", executor, hook, progress=kill_when_begun)
    assert contents(root / "out") == local(root)
