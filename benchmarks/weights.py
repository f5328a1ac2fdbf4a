"""Measure reasonvec's weight commands against mergekit, a script with transformers, and copying.

    python benchmarks/weights.py [--part transfer ...] [--shape qwen2.5-0.5b ...] [--pairs 5] [--dir bench] [--write]

Prints tables and goals, met or not. Results are kept in the directory, so that parts can be measured one at a time;
--write puts all that is kept into docs/performance.md, and --reuse does only that. Needs some 60 GB of disk for
everything; --part, --shape and --shards choose less. Exit status 1 if a contender crashed, whatever was measured.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import parts
import sizes
from contenders import offers
from document import document
from machine import describe
from measuring import CrashedError, floor, may_drop_caches
from results import BAR_COLUMNS, MB, Part, Table
from shapes import SHAPES
from workshop import Workshop, say

PARTS: Mapping[str, Callable[[Workshop], Part]] = {
    "transfer": parts.transfer, "apply": parts.apply, "memory": sizes.memory, "startup": parts.startup,
    "sparse": sizes.sparse, "growth": sizes.growth, "alphas": parts.alphas, "fsync": parts.fsync,
}  # fmt: skip
DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"


def main(words: Sequence[str] | None = None) -> int:
    """Measure what was asked for, print it and write it down; 1 if a contender crashed."""
    arguments = parser().parse_args(words)
    arguments.dir.mkdir(parents=True, exist_ok=True)
    crashes = [] if arguments.reuse else measure(arguments)
    if arguments.write or arguments.reuse:
        write(kept(arguments.dir), arguments.document)
    for crash in crashes:
        print(f"CRASHED: {crash}", file=sys.stderr)
    return 1 if crashes else 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), dest="chosen")
    parser.add_argument("--shape", nargs="+", choices=SHAPES, help="instead of those that each part is meant for")
    parser.add_argument("--shards", nargs="+", type=int, default=[1, 25], help="files of a checkpoint")
    parser.add_argument("--pairs", type=int, default=5, help="rounds in which all contenders take turns")
    parser.add_argument("--cold-pairs", type=int, default=2, help="rounds with an empty page cache; 0 for none")
    parser.add_argument("--workers", type=int, default=max(2, os.cpu_count() or 2), help="what stands for several")
    parser.add_argument("--gigabytes", nargs="+", type=float, default=[0.1, 0.5, 1.5, 3, 6], help="of part growth")
    parser.add_argument("--dir", type=Path, default=Path("bench"), help="for checkpoints, outputs and results")
    parser.add_argument("--write", action="store_true", help="write the document from all that is kept")
    parser.add_argument("--reuse", action="store_true", help="measure nothing, only write the document")
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    return parser


def measure(arguments: argparse.Namespace) -> list[str]:
    """Run the parts, print and keep what they found; what crashed."""
    cold_pairs = arguments.cold_pairs
    if cold_pairs and not may_drop_caches():
        say("the page cache cannot be dropped here (root may, by /proc/sys/vm/drop_caches): nothing is measured cold")
        cold_pairs = 0
    root = arguments.dir.resolve()
    shop = Workshop(root, arguments.pairs, cold_pairs, arguments.shards, arguments.workers, offers(),
                    arguments.shape, arguments.gigabytes)  # fmt: skip
    bars = []
    for name in arguments.chosen:
        shop.clear()
        say(f"part {name}")
        try:
            part = PARTS[name](shop)
        except CrashedError as error:
            shop.crashes.append(f"part {name} was broken off: {error}")
            continue
        finally:
            shop.clear()
        part.machine = describe(root)
        (root / f"{name}.json").write_text(json.dumps(part.to_json(), indent=1))
        print(f"== {name} ==\n{part.how}\n\n{part.text()}\n", flush=True)
        bars += [bar.cells() for bar in part.bars]
    if bars:
        print(Table("== goals ==", BAR_COLUMNS, bars).text())
    say(f"no peak could be read below {floor() / MB:.0f} MB, that of the measuring process")
    return shop.crashes


def kept(directory: Path) -> list[Part]:
    """What was measured, in the order of the parts."""
    files = [directory / f"{name}.json" for name in PARTS]
    return [Part.from_json(json.loads(file.read_text())) for file in files if file.exists()]


def write(found: Sequence[Part], path: Path) -> None:
    """The document, and the picture beside it."""
    if not found:
        raise SystemExit("bench: nothing was measured yet, so there is nothing to write.")
    path.write_text(document(found))
    if points := [point for part in found for point in part.points]:
        from growth_figure import draw  # after the last measurement: matplotlib would raise every peak (measuring.py)

        draw(points, path.with_name("growth.png"))
    say(f"wrote {path}")


if __name__ == "__main__":
    raise SystemExit(main())
