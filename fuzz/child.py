"""One process of libFuzzer on one target: `python -m fuzz.child TARGET CORPUS FINDINGS [libFuzzer options]`.

A finding does not end the process: it is saved once for each place that it comes from, and the fuzzing goes on.
"""

import itertools
import sys
import tempfile
import traceback
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["reasonvec.weights"]):
    import reasonvec
    from fuzz.targets import TARGETS

from fuzz.mutation import mutated
from fuzz.watch import attempt, reads

PACKAGE = Path(reasonvec.__file__).parent
TRACED = 128
"""One input in so many is run with every allocation counted."""


def main(name: str, corpus: Path, findings: Path, options: list[str]) -> None:
    """Fuzz the target `name` until an option of libFuzzer ends it."""
    target, numbers, known = TARGETS[name], itertools.count(), set[str]()
    work = Path(tempfile.mkdtemp()).resolve()  # in the directory that the parent removes, however this process ends
    seeds = list(target.seeds().values())
    for data in seeds:
        attempt(target, data, work)  # threads and caches are made before memory is watched

    valid = [data for data in seeds if reads(target, data, work)]

    def run(data: bytes) -> None:
        error = attempt(target, data, work, traced=next(numbers) % TRACED == 0)
        if error is not None and (place := _place(error)) not in known:
            known.add(place)
            save(findings / f"{name}-{place}", data, error)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        return mutated(data, most, seed, atheris.Mutate, valid)

    atheris.Setup([sys.argv[0], *options, str(corpus)], run, custom_mutator=mutate)
    atheris.Fuzz()


def _place(error: Exception) -> str:
    """A name for what went wrong and where, the same for inputs that find the same."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    if ours:
        return f"{type(error).__name__}-{Path(ours[-1].filename).stem}-{ours[-1].name}"
    return f"{type(error).__name__}-{frames[-1].name}-{frames[-1].lineno}" if frames else type(error).__name__


def save(path: Path, data: bytes, error: Exception) -> None:
    """Write the input and beside it the traceback, and say so."""
    path.write_bytes(data)
    path.with_name(path.name + ".txt").write_text("".join(traceback.format_exception(error)))
    print(f"finding: {path.name}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
