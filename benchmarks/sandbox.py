"""How long it takes to grade HumanEval's canonical solutions in the sandbox, one after the other and several at once.

    python benchmarks/sandbox.py --data DIR [--threads 2]

Also what the sandbox does on this machine. Exits with status 1 unless all solutions pass.
"""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from reasonvec.evaluation.benchmarks import load_benchmark
from reasonvec.evaluation.programs import grade_program
from reasonvec.evaluation.sandbox import self_test


def main(data: Path, threads: int) -> int:
    """Print the self-test's report and both times."""
    for guarantee in self_test().guarantees:
        print(f"{'holds' if guarantee.holds else 'MISSING':8} {guarantee.name} ({guarantee.layer}): {guarantee.detail}")
    problems = load_benchmark("humaneval", data=data).problems
    failed = set()
    for count in (1, threads):
        started = time.perf_counter()
        with ThreadPoolExecutor(count) as pool:
            grades = list(pool.map(lambda problem: grade_program(problem, problem.gold), problems))
        seconds = time.perf_counter() - started
        failed |= {problem.id for problem, grade in zip(problems, grades, strict=True) if not grade.correct}
        print(f"{len(problems)} solutions, {count} at once: {seconds:.1f} s")
    print(f"failed: {', '.join(sorted(failed)) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    sys.exit(main(**vars(parser.parse_args())))
