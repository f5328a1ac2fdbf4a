"""Files of strangers with any content: a result, or one of reasonvec's own errors, and never another one."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reasonvec.errors import ReasonvecError
from reasonvec.evaluation.benchmarks import load_benchmark
from reasonvec.evaluation.overlap import find_overlap
from reasonvec.evaluation.perturbations import OPERATORS, perturb

NOWHERE = Path("nowhere")
ROUGH = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
arithmetic = st.text("0123456789+-*/()=.<>%$,x #\n", max_size=40)
questions = st.text("0123456789 .?!,%$/'abcAB\nJoHow he then\u2028é", max_size=60) | st.text(max_size=30)
solutions = st.builds(
    lambda parts: "".join(f"<<{part}>>" for part in parts) + "\n#### 4", st.lists(arithmetic, max_size=3)
)
rows = st.fixed_dictionaries(
    {"question": questions, "answer": solutions | arithmetic | st.integers()},
    optional={"id": values, "gold": values, "kind": values, "details": values, "task": values},
)


@ROUGH
@given(content=st.binary() | st.lists(values | rows, max_size=3).map(lambda r: "\n".join(map(json.dumps, r)).encode()))
def test_any_file_of_problems(tmp_path, content):
    file = tmp_path / "mine.jsonl"
    file.write_bytes(content)
    with suppress(ReasonvecError):
        for problem in load_benchmark(str(file), data=NOWHERE).problems:
            assert problem.question.encode()
            assert problem.gold


@pytest.mark.parametrize("operator", OPERATORS)
@ROUGH
@given(row=rows, seed=st.integers())
def test_any_problem_perturbed(tmp_path, operator, row, seed):
    file, out = tmp_path / "mine.jsonl", tmp_path / "out.jsonl"
    other = {"question": "Jo has 3 pens and buys 4. How many?", "answer": "<<3+4=7>>\n#### 7", "id": "other"}
    file.write_text(json.dumps(row) + "\n" + json.dumps(other) + "\n")
    with suppress(ReasonvecError):
        perturb(str(file), operator=operator, severity=1, seed=seed, out=out, data=NOWHERE, force=True)
        assert load_benchmark(str(out), data=NOWHERE).problems


@ROUGH
@given(content=st.binary() | st.lists(values, max_size=4).map(lambda r: "\n".join(map(json.dumps, r)).encode()),
       ending=st.sampled_from(["", ".gz", ".zst"]))  # fmt: skip
def test_any_training_data(tmp_path, content, ending):
    task, file = tmp_path / "task.jsonl", tmp_path / f"train.jsonl{ending}"
    task.write_text('{"question": "What is 2 + 3?", "answer": "5"}\n')
    file.write_bytes(content)
    with suppress(ReasonvecError):
        assert find_overlap([file], task=str(task), data=NOWHERE).rows >= 0


def test_numbers_that_would_grow_without_end_are_no_program(tmp_path):
    large = "9" * 900
    steps = f"<<{large}*{large}={int(large) ** 2}>>"
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"question": f"{large} and 7?", "answer": f"{steps}\n#### 7"}) + "\n")
    with pytest.raises(
        ReasonvecError, match="mine.jsonl cannot be measured on: line 1: `answer` holds a number of 1000"
    ):
        perturb(str(file), operator="numbers", severity=3, seed=0, out=tmp_path / "o.jsonl", data=NOWHERE)
    product = "*".join(["9" * 90] * 60)
    file.write_text(json.dumps({"question": "7?", "answer": f"<<{product}={product}>>\n<<3+4=7>>\n#### 7"}) + "\n")
    with pytest.raises(ReasonvecError, match="an annotation of enormous numbers"):
        perturb(str(file), operator="numbers", severity=3, seed=0, out=tmp_path / "o.jsonl", data=NOWHERE)
