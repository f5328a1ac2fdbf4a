"""What it takes to attach a sparse vector to a loaded model, beside what it takes to load that model.

    python benchmarks/live.py [--shape qwen2.5-0.5b] [--unchanged 0.8] [--rounds 3] [--directory DIR]

Makes random checkpoints of the shape and a vector, then times in turn, in the same run:

* a new process that loads the model and reads every weight, which is what each alpha of a sweep costs otherwise;
* in this process `from_pretrained`, which maps the file and reads nothing, and then reading every weight into memory;
* attaching the vector, and taking it off.

Seconds are those of the clock and, in brackets, of the processor, which say more on a machine that does other things.
With `--cold` the checkpoint leaves the page cache before each load. Prints a Markdown table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, logging

import reasonvec
from machine import describe
from make_checkpoints import make
from reasonvec.weights.live import attached
from shapes import SHAPES

Seconds = tuple[float, float]
"""Of the clock and of the processor."""

NEW_PROCESS = """
import sys
import torch
from transformers import AutoModelForCausalLM, logging
logging.disable_progress_bar()
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto")
with torch.no_grad():
    kept = [parameter.clone() for parameter in model.parameters()]
"""


def timed(work: Callable[[], object]) -> Seconds:
    """What `work` takes."""
    before, begin = os.times(), time.perf_counter()
    work()
    wall, after = time.perf_counter() - begin, os.times()
    return wall, sum(after[:4]) - sum(before[:4])


def drop(path: Path) -> None:
    """Have the files under `path` leave the page cache."""
    for file in path.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def owned(target: Path) -> torch.nn.Module:
    """The model with its weights in memory of its own, as they are once they were moved or trained."""
    model = AutoModelForCausalLM.from_pretrained(target, dtype="auto")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    return model


def measure(root: Path, rounds: int, *, cold: bool) -> dict[str, list[Seconds]]:
    """The seconds of every step, once a round."""
    target, found = root / "target", dict[str, list[Seconds]]()

    def note(step: str, seconds: Seconds) -> None:
        found.setdefault(step, []).append(seconds)

    process = [sys.executable, "-W", "ignore", "-c", NEW_PROCESS, str(target)]
    for _ in range(rounds):
        if cold:
            drop(target)
        note("load in a new process, all weights read", timed(lambda: subprocess.run(process, check=True)))
        if cold:
            drop(target)
        note("`from_pretrained` here (maps the file)", timed(lambda: AutoModelForCausalLM.from_pretrained(target)))
        if cold:
            drop(target)
        note("`from_pretrained` here, all weights read", timed(lambda: owned(target)))
        for name, model in (("", owned(target)), (", mapped file", AutoModelForCausalLM.from_pretrained(target))):
            context = attached(model, root / "vector", alpha=0.5)
            note(f"attach{name}", timed(context.__enter__))
            note(f"take off{name}", timed(lambda: context.__exit__(None, None, None)))  # noqa: B023 - called here
    return found


def table(found: dict[str, list[Seconds]]) -> str:
    """The medians as Markdown, and attaching over each way to load."""
    medians = {step: tuple(statistics.median(column) for column in zip(*seconds, strict=True))
               for step, seconds in found.items()}  # fmt: skip
    rows = ["| step | seconds (of the processor) | least | attaching is |", "|---|---|---|---|"]
    for step, (wall, processor) in medians.items():
        loads = "attach" not in step and "take" not in step
        part = f"{medians['attach'][0] / wall:.0%} ({medians['attach'][1] / processor:.0%}) of it" if loads else ""
        rows.append(f"| {step} | {wall:.2f} ({processor:.2f}) | {min(found[step])[0]:.2f} | {part} |")
    return "\n".join(rows)


def main() -> None:
    """Make what is needed, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--unchanged", type=float, default=0.8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--directory", type=Path, help="where the checkpoints go; 3 GB for 0.5B. Removed afterwards")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        root = Path(directory)
        make(
            root / "made", SHAPES[arguments.shape], 1, unchanged=arguments.unchanged, seed=0, repeat=False, filled=None
        )
        root = root / "made"
        reasonvec.extract(tuned=root / "tuned", base=root / "base", out=root / "vector", encoding="sparse")
        document = json.loads((root / "vector" / "vector.json").read_text())
        changed = sum(tensor["changed"] for tensor in document["tensors"].values())
        print("\n".join(f"{what}: {value}" for what, value in describe(root).items()))
        print(f"{arguments.shape}: {1 - changed / SHAPES[arguments.shape].weights():.1%} of the vector is zero, "
              f"{'cold' if arguments.cold else 'warm'} page cache, median of {arguments.rounds}\n")  # fmt: skip
        with attached(owned(root / "target"), root / "vector", alpha=0.5) as attachment:  # what is loaded once
            print(f"attaching keeps {attachment.kept_bytes / 1e6:.0f} MB for the way back\n")
        print(table(measure(root, arguments.rounds, cold=arguments.cold)))


if __name__ == "__main__":
    main()
