"""The benchmark's accounting is that of the finished process, and a contender that crashes is named."""

import os
import sys

import pytest

from measuring import Contender, CrashedError, measure, remove, rounds, warm


def program(code, name="program", **options):
    return Contender(name, (sys.executable, "-c", code), **options)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log.txt"


HOLD = "import time; held = b'x' * 200_000_000; time.sleep(0.3)"


def test_memory_of_one_process(log):
    usage = measure(program(HOLD), log)
    assert 200e6 < usage.anonymous < 260e6
    assert usage.resident > usage.anonymous
    assert usage.wall > 0.3


def test_memory_of_several_processes_is_their_sum(log):
    # ru_maxrss alone is that of the largest
    parent = f"import subprocess, sys; held = b'x' * 100_000_000; subprocess.run([sys.executable, '-c', {HOLD!r}])"
    usage = measure(program(parent), log)
    assert 300e6 < usage.anonymous < 360e6
    assert usage.resident > usage.anonymous


def test_cpu_time_is_that_of_the_program(log):
    usage = measure(program("import time\nwhile time.process_time() < 0.4: pass"), log)
    assert 0.4 < usage.cpu < 2  # process_time counts both kinds
    idle = measure(program("import time; time.sleep(0.4)"), log)
    assert idle.cpu < 0.3 < idle.wall


def test_a_pinned_contender_sees_one_core_and_the_next_one_all(log):
    all_cores = os.sched_getaffinity(0)
    core = max(all_cores)
    measure(program("import os; print(os.sched_getaffinity(0))", core=core), log)
    assert log.read_text() == f"{{{core}}}\n"
    assert os.sched_getaffinity(0) == all_cores


def test_output_is_dropped_and_must_be_there(log, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    measure(program(f"import os; os.mkdir({str(out)!r})", output=out), log)
    assert not out.exists()
    measure(program(f"import os; os.mkdir({str(out)!r})", output=out, keep=True), log)
    assert out.exists()
    with pytest.raises(CrashedError, match="lazy left no output"):
        measure(program("", "lazy", output=out), log)


def test_one_that_crashes_is_named_with_its_last_words_and_left_out(log):
    crashes = []
    usages = rounds([program("", "good"), program("raise SystemExit('no such model')", "bad")], 3, log, crashes)
    assert [len(runs) for runs in usages.values()] == [3]
    assert crashes == ["bad ended with status 1.\n    no such model"]


def test_warm_reads_directories_and_files(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"x" * 3_000_000)
    warm([tmp_path / "a", tmp_path / "a" / "b" / "c"])
    remove(tmp_path / "a")
    remove(tmp_path / "a")
    assert not (tmp_path / "a").exists()
