"""From the bytes of a benchmark's file to its problems: one function for each layout. Knows no paths."""

import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

from reasonvec.evaluation.benchmarks.problem import BenchmarkProblem, exact_number

Reader = Callable[[bytes, str], list[BenchmarkProblem]]
"""(bytes of the file, task) -> its problems in the file's order. The file is known by its checksum, so it is trusted to
have its layout."""


def gsm8k(content: bytes, task: str) -> list[BenchmarkProblem]:
    """question, answer: the worked solution with <<a*b=c>> annotations; its last line is `#### gold`."""
    split = "train" if task.endswith("/train") else "test"
    return [
        BenchmarkProblem(
            f"gsm8k/{split}/{place}", task, row["question"], _number(marked_gold(row["answer"])), "number",
            row["answer"],
        )
        for place, row in enumerate(_lines(content))
    ]  # fmt: skip


def humaneval(content: bytes, task: str) -> list[BenchmarkProblem]:
    """gzip of task_id, prompt, entry_point, canonical_solution, test; gold is the canonical solution's code."""
    return [
        BenchmarkProblem(
            row["task_id"].replace("HumanEval/", f"{task}/"), task, row["prompt"], row["canonical_solution"], "program",
            details={"entry_point": row["entry_point"], "test": row["test"]},
        )
        for row in _lines(gzip.decompress(content))
    ]  # fmt: skip


def sciq(content: bytes, task: str) -> list[BenchmarkProblem]:
    """One JSON array of question, correct_answer, distractor1..3, support, which gives the answer away."""
    split = "valid" if task.endswith("/valid") else "test"
    return [
        BenchmarkProblem(
            f"sciq/{split}/{place}", task, row["question"], row["correct_answer"], "choice",
            details={"distractors": [row[f"distractor{number}"] for number in (1, 2, 3)], "support": row["support"]},
        )
        for place, row in enumerate(json.loads(content))
    ]  # fmt: skip


def bbh(content: bytes, task: str) -> list[BenchmarkProblem]:
    """examples: input, target. A task whose targets are all numbers is compared as numbers, else as text: (A), Yes."""
    examples = json.loads(content)["examples"]
    numbers = [exact_number(example["target"]) for example in examples]
    numeric = all(number is not None for number in numbers)
    return [
        BenchmarkProblem(
            f"{task}/{place}", task, example["input"], number if numeric and number else example["target"],
            "number" if numeric else "text",
        )
        for place, (example, number) in enumerate(zip(examples, numbers, strict=True))
    ]  # fmt: skip


def chain_of_thought(content: bytes) -> str:
    """A prompt file of BIG-Bench Hard without its canary line and the rule below it."""
    _, _, prompt = content.decode().partition("\n-----\n")
    return prompt


def math500(content: bytes, task: str) -> list[BenchmarkProblem]:
    """problem, solution, answer in LaTeX, subject, level 1 to 5, unique_id."""
    return [
        BenchmarkProblem(
            f"{task}/{row['unique_id'].removesuffix('.json')}", task, row["problem"], row["answer"], "expression",
            row["solution"], {"subject": row["subject"], "level": row["level"]},
        )
        for row in _lines(content)
    ]  # fmt: skip


def contest(content: bytes, task: str) -> list[BenchmarkProblem]:
    """AIME and AMC: id, problem, answer (an integer, some written 025 or 27.0), solution in AIME's alone."""
    return [
        BenchmarkProblem(
            f"{task}/{row['id']}", task, row["problem"], _number(row["answer"]), "number", row.get("solution")
        )
        for row in _lines(content)
    ]


def minerva(content: bytes, task: str) -> list[BenchmarkProblem]:
    """problem, solution, whose last boxed expression is the gold answer, type (the course), idx."""
    return [
        BenchmarkProblem(
            f"{task}/{row['idx']}", task, row["problem"], boxed(row["solution"]), "expression", row["solution"],
            {"course": row["type"]},
        )
        for row in _lines(content)
    ]  # fmt: skip


def olympiadbench(content: bytes, task: str) -> list[BenchmarkProblem]:
    """question, solution (several, of which the first is taken), final_answer (one text, several answers within it)."""
    return [
        BenchmarkProblem(
            f"{task}/{row['id']}", task, row["question"], ", ".join(row["final_answer"]), "expression",
            row["solution"][0],
            {key: row[key] for key in ("subfield", "unit", "answer_type", "is_multiple_answer")},
        )
        for row in _lines(content)
    ]  # fmt: skip


def svamp(content: bytes, task: str) -> list[BenchmarkProblem]:
    """Body and Question, asked one after the other; Answer (145.0), Equation, Type, ID."""
    return [
        BenchmarkProblem(
            f"{task}/{row['ID']}", task, f"{row['Body'].strip()} {row['Question'].strip()}", _number(row["Answer"]),
            "number", details={"equation": row["Equation"], "type": row["Type"]},
        )
        for row in _lines(content)
    ]  # fmt: skip


def asdiv(content: bytes, task: str) -> list[BenchmarkProblem]:
    """body and question, answer with its unit in brackets: `9 (apples)`. 123 of 2,215 answers are no number: text."""
    problems = []
    for row in _lines(content):
        value, _, unit = row["answer"].partition(" (")
        number = exact_number(value)
        problems.append(BenchmarkProblem(
            f"{task}/{row['idx']}", task, f"{row['body'].strip()} {row['question'].strip()}",
            row["answer"] if number is None else number, "text" if number is None else "number",
            details={"unit": unit.removesuffix(")"), "formula": row["formula"], "type": row["solution_type"]},
        ))  # fmt: skip
    return problems


def multiarith(content: bytes, task: str) -> list[BenchmarkProblem]:
    """input, target (an integer)."""
    return [
        BenchmarkProblem(f"{task}/{place}", task, row["input"], _number(row["target"]), "number")
        for place, row in enumerate(_lines(content))
    ]


def marked_gold(solution: str) -> str:
    """What follows the last `####` of a solution; all of it where there is none."""
    return solution.rpartition("####")[2].strip()


def boxed(solution: str) -> str:
    r"""The inside of the last \boxed{...}, by counting braces; the empty string where there is none."""
    _, found, rest = solution.rpartition(r"\boxed{")
    depth = 1 if found else 0
    for place, letter in enumerate(rest):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if not depth:
            return rest[:place]
    return ""


def _lines(content: bytes) -> Iterator[dict[str, Any]]:
    # numbers with a point stay the text they were: no rounding
    return (json.loads(line, parse_float=str) for line in content.splitlines() if line.strip())


def _number(text: str | int) -> str:
    number = exact_number(str(text))
    if number is None:
        raise ValueError(f"{text!r} is no number, though every gold answer of this benchmark is.")
    return number
