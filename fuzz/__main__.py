"""`python -m fuzz`: every target in turn until both the time and the number of inputs are reached.

Needs atheris, which `make fuzz` installs. Exit status 1 if there are findings.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from fuzz.targets import TARGETS

HERE = Path(__file__).parent
MEMORY = Path("/dev/shm")
"""Where there is memory to write to: files of inputs should not wait for a disk."""
SHORTEST = 10
"""Seconds of one turn at least: starting takes one or two."""


@dataclass
class Tally:
    """What the turns of one target came to."""

    inputs: int = 0
    seconds: float = 0.0
    covered: int = 0
    """Edges that the last turn had seen."""


def main() -> int:
    """Fuzz, print a table, and say where the findings lie."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs in all, at least")
    parser.add_argument("--seconds", type=float, default=600, help="time in all, at least")
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this one; may be given again")
    parser.add_argument("--seed", type=int, default=0, help="libFuzzer's; 0 draws one")
    arguments = parser.parse_args()
    names = arguments.target or list(TARGETS)
    findings, corpus = HERE / "findings", HERE / "corpus"
    findings.mkdir(exist_ok=True)
    before = set(findings.iterdir())
    tallies = {name: Tally() for name in names}
    turn = max(SHORTEST, arguments.seconds / len(names))
    started = time.monotonic()
    while True:
        for name in names:
            print(f"fuzz: {name} for {turn:.0f} s", flush=True)
            _turn(name, tallies[name], corpus / name, findings, turn, arguments.seed)
        done, passed = sum(tally.inputs for tally in tallies.values()), time.monotonic() - started
        if done >= arguments.runs and passed >= arguments.seconds:
            break
        missing = max(arguments.seconds - passed, passed * (arguments.runs - done) / max(done, 1))
        turn = max(SHORTEST, min(turn, missing / len(names)))
    found = sorted(path for path in set(findings.iterdir()) - before if path.suffix != ".txt")
    print(f"\n{'target':<12}{'inputs':>10}{'per second':>12}{'edges':>8}{'corpus':>8}{'findings':>10}")
    for name, tally in tallies.items():
        mine = sum(path.name.startswith(f"{name}-") for path in found)
        size = len(list((corpus / name).iterdir()))
        rate = tally.inputs / tally.seconds
        print(f"{name:<12}{tally.inputs:>10}{rate:>12.0f}{tally.covered:>8}{size:>8}{mine:>10}")
    print(f"{'in all':<12}{done:>10}{done / passed:>12.0f}{'':>16}{len(found):>10}   in {passed:.0f} s")
    for path in found:
        print(f"finding: {path.relative_to(HERE.parent)}")
    if found:
        print("Beside each is what was raised, in a .txt; a crash or hang of the process has none.")
    return 1 if found else 0


def _turn(name: str, tally: Tally, corpus: Path, findings: Path, seconds: float, seed: int) -> None:
    """Fuzz one target for some time; libFuzzer is started again where a crash or a hang has ended it."""
    corpus.mkdir(parents=True, exist_ok=True)
    for label, data in TARGETS[name].seeds().items():
        (corpus / f"seed-{label}").write_bytes(data)
    for path in (HERE / "regressions").glob(f"{name}-*"):
        (corpus / path.name).write_bytes(path.read_bytes())
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 1:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="reasonvec-fuzz-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
            done = subprocess.run(
                [sys.executable, "-m", "fuzz.child", name, str(corpus), str(findings),
                 f"-max_total_time={left:.0f}", f"-seed={seed}", "-timeout=20", "-rss_limit_mb=0", "-max_len=8192",
                 "-len_control=0", "-print_final_stats=1", f"-artifact_prefix={findings}/{name}-"],
                cwd=HERE.parent, capture_output=True, text=True, errors="replace", check=False,
                env={**os.environ, "TMPDIR": folder},
            )  # fmt: skip
        words = done.stdout + done.stderr
        tally.seconds += time.monotonic() - began
        counts = re.findall(r"^#(\d+)|stat::number_of_executed_units:\s*(\d+)", words, re.MULTILINE)
        tally.inputs += max((int(progress or last) for progress, last in counts), default=0)
        tally.covered = max(map(int, re.findall(r"cov: (\d+)", words)), default=tally.covered)
        for line in re.findall(r"finding: .*", words):
            print(f"  {line}", flush=True)
        if done.returncode:
            print(f"  libFuzzer ended with {done.returncode}:\n{words[-1500:]}", flush=True)
            if time.monotonic() - began < SHORTEST / 2:
                sys.exit("fuzz: it ends at once; nothing more can be done until that is mended")


if __name__ == "__main__":
    sys.exit(main())
