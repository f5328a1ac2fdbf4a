"""How fast `reasonvec overlap` reads training data, on one core, and whether it finds what was put there.

    python benchmarks/overlap.py [--megabytes 100] [--rows 600] [--task gsm8k --data DIR]

Makes the training data, and without --task a benchmark of 1,319 questions too: words drawn by Zipf's law, of a seed.
Every 1,000th row holds a question, verbatim, in capitals, spaced anew or half of it. Prints JSON: megabytes a second of
processor time and of the clock, peak memory, what was found of what was put there, machine and versions.
"""

import argparse
import json
import random
import re
import tempfile
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import machine
from reasonvec.evaluation.benchmarks import load_benchmark
from reasonvec.evaluation.overlap import find_overlap

EVERY = 1000
DISGUISES = {
    "exact": lambda text: text,
    "normalised": str.swapcase,
    "spaced": lambda text: "\n".join(text.split()),
    "partial": lambda text: " ".join(text.split()[: max(8, len(text.split()) // 2)]),
}
HEADS, MIDDLES = ("b", "tr", "m", "sl", "k"), ("a", "e", "ing", "oun", "ar", "i")
TAILS = ("", "s", "ter", "ning", "ly", "d", "ble", "st")
WORDS = [head + middle + tail for head in HEADS for middle in MIDDLES for tail in TAILS]
WEIGHTS = list(accumulate(1 / place for place in range(1, len(WORDS) + 1)))


def sentence(generator: random.Random, words: int) -> str:
    return " ".join(generator.choices(WORDS, cum_weights=WEIGHTS, k=words)).capitalize() + "."


def write_benchmark(file: Path) -> None:
    """1,319 questions of 46 words, as GSM8K's are on average."""
    generator = random.Random(1)
    with file.open("w") as out:
        for number in range(1319):
            question = f"{sentence(generator, 20)} {sentence(generator, 12)} How many {sentence(generator, 11)[:-1]}?"
            out.write(json.dumps({"id": str(number), "question": question, "answer": "1"}) + "\n")


def training_rows(questions: list[str], row_bytes: int, disguises: dict[int, str]) -> Iterator[str]:
    """Rows without end; notes in `disguises` which question was put in how."""
    generator, number = random.Random(2), 0
    names = list(DISGUISES)
    while True:
        number += 1
        text = sentence(generator, row_bytes // 6)
        if number % EVERY == 0:
            place = (number // EVERY - 1) % len(questions)
            name = names[place % len(names)]
            if name == "partial" and len(re.findall(r"[^\W_]+", DISGUISES[name](questions[place]))) < 8:
                name = "exact"  # half of it is no run of 8 words
            disguises[place] = name
            text += " " + DISGUISES[name](questions[place]) + " " + sentence(generator, 5)
        yield json.dumps({"prompt": text[: len(text) // 8], "completion": text}) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rows", type=int, default=600, help="bytes of a row's text")
    parser.add_argument("--task")
    parser.add_argument("--data", type=Path, default=Path("data"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        task = options.task
        if not task:
            task = f"{directory}/made.jsonl"
            write_benchmark(Path(task))
        questions = [problem.question for problem in load_benchmark(task, data=options.data).problems]
        training, disguises, size = Path(directory) / "training.jsonl", {}, 0
        with training.open("w") as out:
            for row in training_rows(questions, options.rows, disguises):
                size += out.write(row)
                if size >= options.megabytes * 10**6:
                    break
        wall, cpu = time.perf_counter(), time.process_time()
        found = find_overlap([training], task=task, data=options.data)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        megabytes = training.stat().st_size / 1e6
        how = {problem.id: problem.how for problem in found.problems}
        ids = [problem.id for problem in found.benchmark.problems]
        missed = [ids[place] for place in disguises if ids[place] not in how]
        peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
        print(json.dumps({
            "megabytes": round(megabytes, 1),
            "megabytes a second, processor": round(megabytes / cpu, 1),
            "megabytes a second, clock": round(megabytes / wall, 1),
            "peak memory in MB": round(int(peak) * 1.024e-3),
            "questions put there": len(disguises),
            "of them missed": len(missed),
            "found": found.counts,
            **machine.describe(Path(directory)),
        }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
