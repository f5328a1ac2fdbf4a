"""docs/performance.md, from what the parts of the benchmark found out."""

from collections.abc import Mapping, Sequence

from results import BAR_COLUMNS, Part, Table

TITLES = {
    "transfer": "Transfer in one pass",
    "apply": "Extract, apply, verify",
    "memory": "Memory",
    "startup": "Start-up",
    "sparse": "The sparse vector",
    "growth": "Growth with the model",
    "alphas": "Several alphas in one pass",
    "fsync": "What fsync costs",
}
HOW = """Written by `make bench ARGS=--write`. Absolute times are those of one machine and decide nothing: ratios of
interleaved runs do, and CPU time.

* **Contenders take turns** (A B C A B C); a ratio is taken within each round. Numbers are medians with smallest and
  largest in brackets; memory is the largest of all runs.
* **Wall, user and system time** are those of the whole process, start-up included, as the operating system accounts for
  the finished child (`wait4`).
* **Peak memory** is the largest resident set (`ru_maxrss`), with the pages of mapped files; where a contender has
  several processes at a time and the sampled sum of theirs is larger, that sum. Its anonymous part is sampled every
  5 ms from `/proc/PID/status` (`RssAnon`, descendants included), so a shorter peak can be missed. MB are 10^6 bytes.
* **Warm**: all inputs were read just before, outside the timing. **Cold**: the page cache was dropped just before, with
  the programs' own files in it. In both cases the disk had nothing left to write.
* **reasonvec puts its output on the disk** (fsync) before it ends; mergekit, transformers and `cp` do not.
* Weights are random, of the shape of the models named; about 78 % of the entries are equal in both donors, unless it
  says otherwise. Times hardly depend on that, sizes of sparse vectors do."""


def document(parts: Sequence[Part]) -> str:
    """The whole text."""
    machine = parts[0].machine
    bars = [bar.cells() for part in parts for bar in part.bars]
    blocks = ["# Performance", HOW, _listed(machine)]
    if bars:
        met = sum(bar.met for part in parts for bar in part.bars)
        blocks += ["## Goals", Table(f"{met} of {len(bars)} are met", BAR_COLUMNS, bars).markdown()]
    for part in parts:
        blocks += [f"## {TITLES[part.name]}", part.how]
        if part.machine != machine:
            differs = {name: value for name, value in part.machine.items() if machine.get(name) != value}
            blocks.append(f"Measured on a different machine or with other versions:\n\n{_listed(differs)}")
        blocks += [table.markdown() for table in part.tables]
        if part.points:
            blocks.append("![peak memory and time over the size of the inputs](growth.png)")
        blocks += [f"*{note}*" for note in part.notes]
    return "\n\n".join(blocks) + "\n"


def _listed(described: Mapping[str, str]) -> str:
    return "\n".join(f"* {name}: {value}" for name, value in described.items())
