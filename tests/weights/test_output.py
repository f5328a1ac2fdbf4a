"""Promise 4, crash-safe: a run killed at any instant leaves nothing visible or a complete result, and resumes."""

import errno
import itertools
import json
import os
import resource
import shutil
import signal
import warnings
from collections import namedtuple

import numpy as np
import pytest

from reasonvec.errors import CheckpointError, OutputError, VectorError
from reasonvec.weights import apply, apply_sweep, extract, output, transfer
from reasonvec.weights.blocks import BLOCK
from reasonvec.weights.safetensors_header import read_header
from tests.checkpoints import BF16, everything_under, moved, random_tensors, read, write

CALLS = ("pwrite", "fsync", "ftruncate", "rename")
"""What changes the disk; a kill between any two of them is a different state to be left behind."""


INSTANTS = 200
"""Kills over all operations; `make test` tries every tenth of them, `make torture` all."""


@pytest.fixture
def root(tmp_path, monkeypatch):
    return checkpoints(tmp_path, monkeypatch)


def checkpoints(path, monkeypatch):
    """base, tuned, target and a vector; the commits are so small that every tensor is one, as in a large model."""
    base = random_tensors(0)
    rng = np.random.default_rng(3)
    base["model.layers.1.mlp.up_proj.weight"] = (rng.standard_normal((2, BLOCK)) * 0.02).astype(BF16)  # two blocks
    for name, tensors in (("base", base), ("tuned", moved(base, 1)), ("target", moved(base, 2))):
        write(path / name, tensors)
    extract(tuned=path / "tuned", base=path / "base", out=path / "vector")
    monkeypatch.setattr(output, "COMMIT_BYTES", 1)
    return path


def run(operation, root, out, **options):
    donors = {"tuned": root / "tuned", "base": root / "base"}
    if operation == "extract":
        return extract(**donors, out=out, **options)
    if operation == "transfer":
        return transfer(**donors, target=root / "target", out=out, alpha=0.7, **options)
    return apply(vectors=[(root / "vector", 0.7)], target=root / "target", out=out, **options)


def contents(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def in_a_child(work, kill_at=None, torn=0.0):
    """Run `work` in a forked process that kills itself at the given call that changes the disk; the number of calls.

    The share `torn` of the data of a write is on its way to the disk before.
    """
    readable, writable = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside NumPy's idle threads
        child = os.fork()
    if child == 0:
        calls = itertools.count(1)

        def counted(original):
            def call(*arguments, **keywords):
                if next(calls) == kill_at:
                    if original is pwrite:
                        descriptor, data, at = arguments
                        pwrite(descriptor, data[: int(len(data) * torn)], at)
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments, **keywords)

            return call

        pwrite = os.pwrite
        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        status = 1
        try:
            work()
            status = 0
        finally:
            os.write(writable, str(next(calls) - 1).encode())
            os._exit(status)
    os.close(writable)
    _, status = os.waitpid(child, 0)
    with os.fdopen(readable) as pipe:
        told = pipe.read()
    assert status == 0 or (kill_at and os.WTERMSIG(status) == signal.SIGKILL)
    return int(told or 0)


@pytest.mark.parametrize("operation", ["extract", "apply", "transfer"])
def test_a_kill_at_any_instant_leaves_nothing_or_everything_and_resumes(root, operation):
    run(operation, root, root / "whole")
    expected = contents(root / "whole")
    calls = in_a_child(lambda: run(operation, root, root / "out"))
    assert contents(root / "out") == expected
    rng = np.random.default_rng(sum(operation.encode()))
    share = {"extract": 67, "apply": 67, "transfer": INSTANTS - 134}[operation]
    instants = [(int(rng.integers(1, calls + 1)), float(rng.random())) for _ in range(share)]
    for number, (instant, torn) in enumerate(instants if os.environ.get("REASONVEC_TORTURE") else instants[::10]):
        out = root / f"out{number}"
        in_a_child(lambda out=out: run(operation, root, out), kill_at=instant, torn=torn)
        assert not out.exists() or contents(out) == expected
        if not out.exists():
            run(operation, root, out, resume=True)
        else:  # killed between the last rename and the clearing up; the next run takes the empty staging directory away
            run(operation, root, out, force=True)
        assert contents(out) == expected, f"killed at call {instant} of {calls}"
        assert not [name for name in everything_under(root) if f".out{number}.reasonvec" in name]


def test_resuming_does_not_compute_finished_tensors_again(root, monkeypatch):
    from reasonvec.weights import job

    done = []
    original = job.Job.work

    def work(self, name, reader, sinks):
        done.append(name)
        if len(done) == 5:
            raise KeyboardInterrupt
        return original(self, name, reader, sinks)

    monkeypatch.setattr(job.Job, "work", work)
    with pytest.raises(KeyboardInterrupt):
        run("apply", root, root / "out", workers=1)
    assert not (root / "out").exists()
    assert (root / ".out.reasonvec-partial").is_dir()
    run("apply", root, root / "out", resume=True, workers=1)
    assert done[4] == done[5]
    assert len(done) == len(read_header(root / "target/model.safetensors")[0]) + 1


def test_a_torn_line_of_the_journal_spoils_neither_what_was_before_nor_what_comes_after(root):
    """Two kills: the first in the middle of a line of the journal."""
    run("apply", root, root / "whole")

    def stopped_after(tensors):
        seen = []

        def stop(nbytes):
            seen.append(nbytes)
            if len(seen) == tensors:
                raise KeyboardInterrupt

        return stop

    with pytest.raises(KeyboardInterrupt):
        run("apply", root, root / "out", progress=stopped_after(4), workers=1)
    journal = root / ".out.reasonvec-partial/journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) >= 2
    journal.write_bytes(b"".join(lines) + lines[0][:30])
    with pytest.raises(KeyboardInterrupt):
        run("apply", root, root / "out", progress=stopped_after(4), workers=1, resume=True)
    after = [json.loads(line) for line in journal.read_text().splitlines()]
    assert len(after) > len(lines)
    assert [unit for unit, _ in after[: len(lines)]] == [json.loads(line)[0] for line in lines]
    run("apply", root, root / "out", resume=True)
    assert contents(root / "out") == contents(root / "whole")


def test_an_unfinished_run_is_neither_lost_nor_mixed(root, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        run("apply", root, root / "out", progress=interrupt)
    with pytest.raises(OutputError, match=r"holds an unfinished run .* --resume to continue it, or --force"):
        run("apply", root, root / "out")
    os.utime(root / "target/model.safetensors", ns=(1, 1))
    with pytest.raises(OutputError, match="begun with other inputs or options: inputs differ"):
        run("apply", root, root / "out", resume=True)
    run("apply", root, root / "out", force=True)
    assert (root / "out").is_dir()


def interrupt(nbytes):
    raise KeyboardInterrupt


@pytest.mark.parametrize("operation", ["extract", "apply", "transfer"])
def test_an_existing_output_is_never_overwritten(root, operation):
    run(operation, root, root / "out")
    before = contents(root / "out")
    with pytest.raises(OutputError, match=r"exists already and is never overwritten.*--force"):
        run(operation, root, root / "out")
    assert contents(root / "out") == before
    (root / "out/stale.safetensors").write_text("of an earlier run")
    run(operation, root, root / "out", force=True)
    assert contents(root / "out") == before


def test_force_replaces_only_what_reasonvec_made(root):
    (root / "mine").mkdir()
    (root / "mine/thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="was not made by reasonvec"):
        run("apply", root, root / "mine", force=True)
    assert (root / "mine/thesis.tex").read_text() == "years of work"
    for name in ("target", "base"):
        with pytest.raises(OutputError, match="one directory"):
            run("transfer", root, root / name, force=True)
    with pytest.raises(OutputError, match="one lies in the other"):
        run("apply", root, root / "target/out")


@pytest.mark.parametrize("operation", ["extract", "apply"])
def test_a_kill_while_an_output_is_replaced_never_mixes_old_and_new(root, operation):
    """At the last of the instants the old output lies where the new one was made."""
    run(operation, root, root / "old", workers=1)
    old = contents(root / "old")
    changed = root / ("tuned" if operation == "extract" else "target")
    shutil.rmtree(changed)
    write(changed, moved(read(root / "base"), 5))
    run(operation, root, root / "new", workers=1)
    new = contents(root / "new")
    calls = in_a_child(lambda: run(operation, root, root / "new", workers=1, force=True))
    seen = []
    for instant in range(calls - 3, calls + 1):
        shutil.rmtree(root / "out", ignore_errors=True)
        shutil.copytree(root / "old", root / "out")
        in_a_child(lambda: run(operation, root, root / "out", workers=1, force=True), kill_at=instant)
        seen.append(contents(root / "out") == new)
        assert seen[-1] or contents(root / "out") == old
        run(operation, root, root / "out", workers=1, force=True, resume=True)
        assert contents(root / "out") == new
        assert not [name for name in everything_under(root) if "partial" in name]
    assert seen == [False, False, False, True]


def test_a_missing_parent_is_a_clear_error(root):
    with pytest.raises(OutputError, match="so out cannot be made in it.* make it first: mkdir -p .*no/such"):
        run("apply", root, root / "no/such/out")


def test_resuming_what_is_whole_says_so(root):
    run("apply", root, root / "out")
    with pytest.raises(OutputError, match=r"only when it is whole: there is nothing to resume.*--force"):
        run("apply", root, root / "out", resume=True)
    calls = in_a_child(lambda: run("apply", root, root / "killed", workers=1, force=True))
    shutil.rmtree(root / "killed")
    in_a_child(lambda: run("apply", root, root / "killed", workers=1), kill_at=calls)  # after the rename
    assert contents(root / "killed") == contents(root / "out")
    with pytest.raises(OutputError, match=r"nothing to resume.* \S+/\.killed\.reasonvec-partial, .* can be removed"):
        run("apply", root, root / "killed", resume=True)


def test_of_several_outputs_those_that_are_not_there_yet_are_resumed(root, monkeypatch):
    """Interrupted between the renames of two: as the message says, the alphas of the others are given again."""
    publish, published = output.Staging.publish, []

    def once(self, force):
        if published:
            raise KeyboardInterrupt
        published.append(self.out)
        publish(self, force)

    (root / "outs").mkdir()
    where = {"vectors": [(root / "vector", None)], "target": root / "target", "out": root / "outs/{alpha}"}
    monkeypatch.setattr(output.Staging, "publish", once)
    with pytest.raises(KeyboardInterrupt):
        apply_sweep(**where, alphas=[0.5, 0.7])
    monkeypatch.setattr(output.Staging, "publish", publish)
    with pytest.raises(OutputError, match=f"{published[0]} exists already.* leave out those whose output exists"):
        apply_sweep(**where, alphas=[0.5, 0.7], resume=True)
    other = {"0.5": 0.7, "0.7": 0.5}[published[0].name]
    apply_sweep(**where, alphas=[other], resume=True)
    run("apply", root, root / "whole")
    assert contents(root / "outs/0.7") == contents(root / "whole")
    assert everything_under(root / "outs")[0] == "0.5"


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only"), (errno.EIO, "error")],
)
@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_write_errors_leave_nothing_or_name_what_is_kept(root, monkeypatch, call, code, words, committed):
    """A disk that fails at some call and at all that follow, as one that is full or broken does."""
    run("apply", root, root / "whole")
    if not committed:
        monkeypatch.setattr(output, "COMMIT_BYTES", 1 << 30)
    original, calls = getattr(os, call), 0
    after = {"pwrite": 6, "fsync": 4 if committed else 0, "ftruncate": 0, "rename": 0}[call]

    def failing(*arguments):
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(code, os.strerror(code))
        return original(*arguments)

    before = everything_under(root)
    monkeypatch.setattr(os, call, failing)
    with pytest.raises(OutputError, match=words) as caught:
        run("apply", root, root / "out")
    monkeypatch.setattr(os, call, original)
    assert not (root / "out").exists()
    if "--resume" in str(caught.value):
        assert str(root / ".out.reasonvec-partial") in str(caught.value)
        run("apply", root, root / "out", resume=True)
        assert contents(root / "out") == contents(root / "whole")
    else:
        assert not committed or call in ("ftruncate", "pwrite")  # before the first commit, or while it is made
        assert "Nothing was left behind" in str(caught.value)
        assert everything_under(root) == before


def test_a_file_that_the_system_lets_grow_no_further_is_a_write_error(root):
    """The system itself refuses the write, as it does on a full disk."""
    message = root / "message"

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        try:
            run("apply", root, root / "out")
        except OutputError as error:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            message.write_text(str(error))

    in_a_child(limited)
    assert "the file would be larger than this system allows" in message.read_text()
    assert not (root / "out").exists()


@pytest.mark.parametrize("operation", ["extract", "apply", "transfer"])
def test_an_input_that_is_cut_during_the_run_is_an_error_and_leaves_nothing(root, operation):
    cut = root / {"extract": "tuned", "apply": "vector", "transfer": "base"}[operation]
    before = everything_under(root)

    def shorten(nbytes):
        for file in cut.glob("*.safetensors"):
            os.truncate(file, 2000)

    with pytest.raises(
        (CheckpointError, VectorError), match=r"it was cut while it was being read|damaged|changed while"
    ):
        run(operation, root, root / "out", progress=shorten, workers=1)
    assert everything_under(root) == before


@pytest.mark.parametrize("operation", ["extract", "transfer"])
def test_an_input_that_vanishes_during_the_run_is_an_error_and_leaves_nothing(root, operation):
    file = root / "tuned/model.safetensors"

    def remove(nbytes):
        file.unlink(missing_ok=True)

    with pytest.raises(CheckpointError, match=r"tuned/model.safetensors (vanished|is missing)"):
        run(operation, root, root / "out", progress=remove)
    assert not [name for name in everything_under(root) if "out" in name]


@pytest.mark.parametrize("operation", ["extract", "apply", "transfer"])
def test_a_resumed_run_does_again_what_three_commits_hold_at_most(tmp_path, monkeypatch, operation):
    rng = np.random.default_rng(0)
    base = {f"model.layers.{i:02d}.w": (rng.standard_normal(40_000) * 0.02).astype(BF16) for i in range(30)}
    for name, tensors in (("base", base), ("tuned", moved(base, 1)), ("target", moved(base, 2))):
        write(tmp_path / name, tensors)
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector")
    commit = {"extract": 50_000, "apply": 200_000, "transfer": 200_000}[operation]
    monkeypatch.setattr(output, "COMMIT_BYTES", commit)
    calls = in_a_child(lambda: run(operation, tmp_path, tmp_path / "out"))
    in_a_child(lambda: run(operation, tmp_path, tmp_path / "cut"), kill_at=calls * 3 // 4)
    written = sum(path.stat().st_blocks * 512 for path in (tmp_path / ".cut.reasonvec-partial/output").rglob("*"))
    journal = [
        json.loads(line) for line in (tmp_path / ".cut.reasonvec-partial/journal.jsonl").read_text().splitlines()
    ]
    done = len(journal) * (sum(p.stat().st_size for p in (tmp_path / "out").glob("*-*.safetensors")) // 30
                           if operation == "extract" else 80_000)  # fmt: skip
    assert len(journal) > 3
    under_way = 5 * 80_000 + 8 * 4096  # blocks of two workers, small files
    assert written - done <= 3 * (commit + 80_000) + under_way
    run(operation, tmp_path, tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "out")


def test_a_short_write_is_continued(root, monkeypatch):
    run("apply", root, root / "whole")
    original = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: original(fd, data[:100], at))
    run("apply", root, root / "out")
    assert contents(root / "out") == contents(root / "whole")


@pytest.mark.parametrize("operation", ["extract", "apply", "transfer"])
def test_a_disk_too_small_is_found_before_the_first_byte(root, monkeypatch, operation):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(output.shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    before = everything_under(root)
    with pytest.raises(OutputError, match=r"needs 0.00 GB and the disk has 0.00 GB free. Nothing was written"):
        run(operation, root, root / "out")
    assert everything_under(root) == before


def test_two_processes_cannot_write_one_output(root):
    other = output.Staging(root / "out", {})
    other.begin(resume=False, restart=False)
    try:
        with pytest.raises(OutputError, match="being written by another process"):
            run("apply", root, root / "out")
    finally:
        other.discard()
    run("apply", root, root / "out")


def test_an_input_that_changes_during_the_run_is_noticed(root):
    changed = False

    def touch(nbytes):
        nonlocal changed
        if not changed:
            os.utime(root / "target/config.json", ns=(1, 1))
            changed = True

    before = everything_under(root)
    with pytest.raises(CheckpointError, match=r"config.json changed while it was being read"):
        run("apply", root, root / "out", progress=touch)
    assert everything_under(root) == before
