"""`--ray`: the tensors of a job, computed and written by the nodes of a Ray cluster to storage that all of them share.

The driver, the process that was asked for the job, keeps what must be in one place: the plan, the staging directory
with its lock, the journal. A task writes some tensors of one shard: it plans the same job from the same files, writes
the bytes where they belong and puts them on the disk before it reports. It can be repeated at will, on any node.
"""

import logging
import os
import platform
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from reasonvec.errors import ClusterError, MissingExtraError, ReasonvecError, UsageError
from reasonvec.weights.blocks import MOST_WORKERS, Workers
from reasonvec.weights.checkpoint import tensor_reader
from reasonvec.weights.job import Job, Records, Shard, Written, begin_file
from reasonvec.weights.output import Staging, write_at
from reasonvec.weights.provenance import exceeds_memory, input_identity, tool

RUNS_PER_NODE = 4
"""A job is cut into at least so many tasks for each node, so that a slow node does not keep all others waiting at the
end; each plans anew, which takes seconds for the largest models."""

RETRIES = 3
"""How often a task is begun again whose worker or node died. One that raised an error is not."""

CONNECT_SECONDS = 10
"""Ray itself would try for minutes to reach a host and port where nothing listens."""

CANCEL_SECONDS = 60
"""A cancelled task ends with the blocks that it has in hand; a node that does not answer is not waited for."""

_MARKER = "shared-"


@contextmanager
def connected(address: str, workers: int | None) -> Iterator["Nodes"]:
    """The nodes of the Ray cluster at `address`, which is what `ray.init` takes: `auto`, `host:port`, `ray://host:port`.

    A process that is connected to a cluster already keeps that connection. Each task has `workers` threads and as many
    processors (at most 4, or what the smallest node has, where None).

    Raises MissingExtraError without the package ray, ClusterError if there is no cluster at `address` or it has no
    processors, UsageError if no node has as many as `workers`.
    """
    ray = _import_ray()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, address)
    try:
        yield Nodes(ray, workers)
    finally:
        if ours:
            ray.shutdown()


def _import_ray() -> Any:
    # read at the import: how often `auto` tries, half a minute each, to reach a cluster that died; Ray's own is 20
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
    try:
        import ray  # here because it is an extra, and for start-up time
        import ray.exceptions
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"--ray needs the package {error.name}, which is not installed. It comes with an extra: "
            f'pip install "reasonvec[ray]"'
        ) from error
    return ray


def _connect(ray: Any, address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # for `local`, where this process starts the cluster
    try:
        _check_listening(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, ImportError, ray.exceptions.RayError) as error:
        raise ClusterError(
            f"--ray {address}: there is no Ray cluster to be reached ({_first_line(error)}). Start one with `ray start "
            f"--head` and on each further node `ray start --address HOST:PORT`, then run this on one of the nodes with "
            f"--ray auto, or elsewhere with --ray ray://HOST:10001."
        ) from error


def _check_listening(address: str) -> None:
    """Raise OSError if nothing answers at an address that names a host and a port."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@dataclass(frozen=True)
class _Order:
    """What all tasks of a job are told. Paths are absolute and must lead to the same files on every node."""

    again: Callable[[], Job]
    identity: Mapping[str, list[int]]
    """The inputs as the driver sees them."""
    tool: Mapping[str, str]
    outputs: tuple[str, ...]
    """The directory of each output's files."""
    marker: str
    """A file that the driver has just made beside them."""
    threads: int


@dataclass(frozen=True)
class Run:
    """Tensors of one shard, written by one task."""

    shard: str
    names: frozenset[str]


class Nodes:
    """Computes and writes with the nodes of a Ray cluster."""

    def __init__(self, ray: Any, workers: int | None) -> None:
        processors = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        usable = [count for count in processors if count]
        if not usable:
            raise ClusterError(
                f"The Ray cluster has {len(processors)} nodes and no processor for tasks on any of them. Add a node "
                f"with `ray start --address HOST:PORT --num-cpus N`."
            )
        self._threads = workers or min(MOST_WORKERS, *usable)
        self._ray, self._count = ray, sum(count >= self._threads for count in usable)
        if not self._count:
            raise UsageError(
                f"--workers {self._threads} asks for as many processors on one node, and the largest node of the Ray "
                f"cluster has {max(usable)}. A task runs on one node, so it would wait for ever; ask for fewer."
            )

    def write(self, job: Job, shards: Sequence[Shard], stagings: Sequence[Staging]) -> Written:
        """As `job.Executor` has it, in the order in which tasks finish.

        Raises what a task raised, and ClusterError if a node sees other files than the driver or if tasks died again
        and again.
        """
        runs = cut(job, shards, job.unfinished(stagings), RUNS_PER_NODE * self._count)
        for shard in shards:
            if any(run.shard == shard.name for run in runs):
                begin_file(shard, stagings)
                for staging in stagings:
                    # closed here before it is opened elsewhere: on NFS the writes of two at once could undo one another
                    staging.complete(shard.name)
        for staging in stagings:
            staging.settle()
        with _marker(stagings[0].root.absolute()) as marker:
            outputs = tuple(str(staging.output.absolute()) for staging in stagings)
            assert job.again, "planned by plan_apply or plan_transfer"
            order = _Order(job.again, input_identity(job.inputs), tool(), outputs, str(marker), self._threads)
            yield from self._results(order, runs)

    def _results(self, order: _Order, runs: Sequence[Run]) -> Written:
        task = self._ray.remote(num_cpus=self._threads, max_retries=RETRIES, scheduling_strategy="SPREAD")(write_run)
        shared = self._ray.put(order)  # goes once to each node
        waiting = [task.remote(shared, run) for run in runs]
        try:
            while waiting:
                (done, *_), waiting = self._ray.wait(waiting)
                yield from self._result(done)
        finally:
            self._cancel(waiting)

    def _result(self, task: Any) -> list[tuple[str, Records]]:
        exceptions = self._ray.exceptions
        try:
            found: list[tuple[str, Records]] = self._ray.get(task)
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, (ReasonvecError, OSError, MemoryError)):
                raise error.cause from None
            raise _failed(f"{type(error.cause).__name__}: {_first_line(error.cause)}") from error
        except exceptions.RayError as error:
            raise _failed(_first_line(error)) from error
        return found

    def _cancel(self, tasks: Sequence[Any]) -> None:
        """Stop the tasks and wait until they have stopped: until then they write."""
        for task in tasks:
            self._ray.cancel(task)
        if tasks:
            self._ray.wait(tasks, num_returns=len(tasks), timeout=CANCEL_SECONDS)


def _failed(reason: str) -> ClusterError:
    return ClusterError(
        f"A task on the Ray cluster failed and cannot be repeated: {reason}. Every node needs the same versions of "
        f"Python, ray and reasonvec, and enough memory. Clear the cause, then run the same command with --resume."
    )


def cut(job: Job, shards: Sequence[Shard], names: set[str], count: int) -> list[Run]:
    """The tensors `names` in at least `count` runs of about one size, as far as shards and tensors can be cut so: a run
    lies in one shard, and a tensor in one run."""
    entries = job.target.tensors
    most = sum(entries[name].nbytes for name in names) // count
    runs = []
    for shard in shards:
        held, filled = list[str](), 0
        for name in (name for name, _ in shard.places() if name in names):
            if held and filled + entries[name].nbytes > most:
                runs.append(Run(shard.name, frozenset(held)))
                held, filled = [], 0
            held.append(name)
            filled += entries[name].nbytes
        if held:
            runs.append(Run(shard.name, frozenset(held)))
    return runs


@contextmanager
def _marker(root: Path) -> Iterator[Path]:
    """A new file in `root`, by which a node knows that it has the same directory before it, and not one of the same
    name that an earlier run left on a disk of its own."""
    for old in root.glob(f"{_MARKER}*"):
        old.unlink()  # of a driver that was killed; a task of it that is still to begin finds out by this
    marker = root / f"{_MARKER}{uuid.uuid4()}"
    marker.touch()
    try:
        yield marker
    finally:
        marker.unlink(missing_ok=True)


def write_run(order: _Order, run: Run) -> list[tuple[str, Records]]:
    """Compute and write the tensors of a run, on a node; their names and records, once their data is on the disk.

    Raises ClusterError if the node does not see what the driver sees, and what `TensorWork` raises.
    """
    job = _plan_again(order)
    shard = next(shard for shard in job.shards() if shard.name == run.shard)
    drop_behind = exceeds_memory(job.inputs)
    with ExitStack() as stack:
        files = [stack.enter_context(_opened(Path(output, shard.name))) for output in order.outputs]
        reader = stack.enter_context(tensor_reader(drop_behind=drop_behind))
        pool = stack.enter_context(Workers(order.threads))
        works = job.works(shard, run.names, reader, [partial(write_at, file) for file in files])
        found = list(job.stream(works, pool))
        for file in files:
            os.fsync(file)
            if drop_behind:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    return found


def _plan_again(order: _Order) -> Job:
    if tool() != order.tool:
        raise _stranger(f"has reasonvec {tool()['version']}, and it is {order.tool['version']} where the command runs",
                        "Install the same version on all nodes.")  # fmt: skip
    if not Path(order.marker).exists():
        raise _stranger(f"does not see the directory of the output, {order.outputs[0]}", _SHARE)
    try:
        job = order.again()
        found = input_identity(job.inputs)
    except (ReasonvecError, OSError) as error:
        raise _stranger(f"cannot read what could be read where the command runs: {error}", _SHARE) from error
    for path in sorted(order.identity.keys() | found.keys()):
        if order.identity.get(path) != found.get(path):
            there, here = (_told(identity.get(path)) for identity in (found, order.identity))
            raise _stranger(f"sees another {path}: {there} there, {here} where the command runs", _SHARE)
    return job


_SHARE = "All nodes have to see the same files at the same paths; put inputs and output on storage that they share."


def _stranger(what: str, advice: str) -> ClusterError:
    return ClusterError(f"The Ray node {platform.node()} {what}. {advice}")


def _told(identity: list[int] | None) -> str:
    return f"{identity[0]} bytes, changed at {identity[1]} ns" if identity else "no such file"


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The descriptor of a file that the driver has made."""
    # for writing only: an NFS client that may read fills the rest of a page from the server, and would write it back
    # over what another node wrote there meanwhile
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
