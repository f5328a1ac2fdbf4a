"""Where the benchmark works: checkpoints that are made once and used again, and a scratch directory that is not."""

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from contenders import Offers, Ours
from measuring import Contender, CrashedError, Usage, measure, remove, rounds
from results import Part, usage_table
from shapes import SHAPES

HOLLOW_FROM = 3_000_000_000
"""Models of more weights than this are made of holes, with 65536 entries filled in each tensor: no disk for all."""
FILLED = 1 << 16


@dataclass
class Workshop:
    """Directory, choices and crashes of one run of the benchmark."""

    root: Path
    pairs: int
    cold_pairs: int
    """0 where the page cache may not be dropped."""
    shards: Sequence[int]
    workers: int
    """What stands for several."""
    offers: Offers
    shapes: Sequence[str] | None = None
    """None: what each part is meant for."""
    gigabytes: Sequence[float] = (0.1, 0.5, 1.5, 3, 6)
    """Sizes of the three inputs together in the part `growth`."""
    crashes: list[str] = field(default_factory=list)

    @property
    def scratch(self) -> Path:
        """For outputs and vectors; emptied by `clear`."""
        return self.root / "scratch"

    @property
    def log(self) -> Path:
        """What the latest contender printed."""
        return self.root / "log.txt"

    def clear(self) -> None:
        """Empty the scratch directory."""
        remove(self.scratch)
        self.scratch.mkdir(parents=True)

    def shapes_or(self, *usual: str) -> Sequence[str]:
        """The shapes asked for, or the usual ones."""
        return self.shapes or usual

    def checkpoints(self, shape: str, shards: int) -> Path:
        """A directory with base, tuned and target of a shape; made where it is missing."""
        options = ["--shape", shape, "--shards", str(shards)]
        if SHAPES[shape].weights() > HOLLOW_FROM:
            options += ["--repeat", "--filled", str(FILLED)]
        return self.make(f"{shape}-{shards}", *options)

    def make(self, name: str, *options: str) -> Path:
        """A directory with checkpoints made by make_checkpoints.py; one that is there is used again."""
        directory = self.root / name
        if not directory.exists():
            say(f"making {directory}")
            unfinished = self.root / f"{name}.unfinished"
            remove(unfinished)
            # in a process of its own: NumPy and the weights would swell this one (see measuring.py)
            script = Path(__file__).with_name("make_checkpoints.py")
            command = [sys.executable, script, unfinished, *options]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            unfinished.rename(directory)
        return directory

    def prepare(self, contender: Contender) -> Path:
        """Run without measuring and keep what it wrote. Raises CrashedError."""
        say(f"preparing: {contender.name}")
        assert contender.output
        measure(Contender(**{**vars(contender), "keep": True}), self.log)
        return contender.output

    def once(self, contender: Contender) -> Usage | None:
        """One measured run; a crash is noted and gives None."""
        say(contender.name)
        try:
            return measure(contender, self.log)
        except CrashedError as error:
            self.crashes.append(str(error))
            return None

    def race(self, contenders: Sequence[Contender], pairs: int | None = None) -> dict[str, list[Usage]]:
        """All in turn, warm."""
        say(f"warm, {pairs or self.pairs} rounds: {'; '.join(each.name for each in contenders)}")
        return rounds(contenders, pairs or self.pairs, self.log, self.crashes)

    def compare(
        self, part: Part, title: str, contenders: Sequence[Contender], reference: str
    ) -> Mapping[str, Sequence[Usage]]:
        """Race them warm and then cold; adds both tables to the part and returns the warm runs."""
        usages = self.race(contenders)
        part.tables.append(usage_table(f"{title}, warm, {self.pairs} rounds", usages, reference))
        if self.cold_pairs:
            say(f"the same cold, {self.cold_pairs} rounds")
            cold = rounds(
                [c for c in contenders if c.name in usages], self.cold_pairs, self.log, self.crashes, cold=True
            )
            part.tables.append(usage_table(f"{title}, cold, {self.cold_pairs} rounds", cold, reference))
        return usages

    def room(self, nbytes: float) -> bool:
        """Whether the disk has room for this much and a little more."""
        return shutil.disk_usage(self.root).free > nbytes + 2e9


def ours(shop: Workshop, models: Path, workers: int | None = None, core: int | None = None) -> Ours:
    """reasonvec on some checkpoints."""
    return Ours(models, shop.offers, workers, core)


def weights_of(models: Path) -> int:
    """The number of bfloat16 weights of a checkpoint; its headers are too small to matter."""
    return size_of(models / "base", "*.safetensors") // 2


def size_of(directory: Path, pattern: str = "*") -> int:
    """Bytes of the files in a directory, subdirectories included."""
    return sum(file.stat().st_size for file in directory.rglob(pattern) if file.is_file())


def say(text: str) -> None:
    """What is going on, on stderr."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
