"""Expressions are compared in a process of its own: nothing in a text hangs, fills or commands this one."""

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reasonvec.errors import MissingExtraError
from reasonvec.evaluation.grading import algebra, grade
from reasonvec.evaluation.grading.algebra import same_expression
from tests.evaluation.grading.problems import problem

WORKER = Path(algebra.__file__).with_name("algebra_worker.py")


def test_equal_expressions_are_equal_however_they_are_written():
    assert same_expression(r"\frac{x^2 - 1}{x - 1}", "x + 1") is True
    assert same_expression("x + 2", "x + 1") is False
    assert same_expression(r"8 \%", "$8$") is True


@pytest.mark.parametrize(
    ("text", "gold", "same"),
    [
        ("10^{-9}", "2.55e-10", False),  # equal when rounded to 6 decimal places
        ("2.55 / 10^{10}", "2.55e-10", True),
        (r"\sqrt{2}", "1.414214", True),
        (r"\sqrt{2}", "1.4142", False),
        ("10^{6} + 1", "10^{6}", False),
        (r"10^{30} + \sqrt{1}", "10^{30}", False),
    ],
)
def test_numbers_are_compared_relative_to_their_size(text, gold, same):
    assert same_expression(text, gold) is same


def test_a_text_that_would_take_for_ever_is_given_up_and_the_next_is_compared():
    assert same_expression("9^{9^{9^{9}}}", "7") is None
    assert same_expression("3 + 4", "7") is True
    found = grade(problem("expression", "7"), r"\boxed{9^{9^{9^{9}}}}")
    assert (found.correct, found.extracted, found.how) == (False, "9^{9^{9^{9}}}", "timed out")


def test_a_worker_that_is_killed_is_started_anew():
    assert same_expression("3 + 4", "7") is True
    worker = algebra._algebra(os.getpid())._worker
    worker.kill()
    worker.wait()
    assert same_expression("3 + 4", "7") is None
    assert same_expression("3 + 4", "7") is True


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').mkdir('{}')",
        r"\text{{__import__('os').mkdir('{}')}}",
        r"\operatorname{{eval}}(__import__('os').mkdir('{}'))",
        r"\mathrm{{__import__}}(os).mkdir({})",
        "1+__import__('os').mkdir('{}')",
        "x_{{__import__('os').mkdir('{}')}}",
        "f(__import__('os').mkdir('{}'))",
        "[__import__('os').mkdir('{}') for x in (1,)]",
        r"\begin{{pmatrix}} __import__('os').mkdir('{}') \end{{pmatrix}}",
        '"}}\n{{"text": "__import__(\'os\').mkdir(\'{}\')", "gold": "1"}}',
    ],
)
def test_no_text_is_run(text, tmp_path):
    target = tmp_path / "made"
    for attempt in (text.format(target), f"\\boxed{{{text.format(target)}}}"):
        assert same_expression(attempt, "7") is False
        assert same_expression("7", attempt) is False
    assert not target.exists()
    assert same_expression("3 + 4", "7") is True  # and the answers are still those to our questions


ACTIONS = [
    "eval('1 + 1')",
    "exec('x = 1')",
    "sympy.sympify('__import__(\"os\")')",
    "sympy.sympify('x + 1')",
    "open('made', 'w')",
    "os.open('made', os.O_CREAT)",
    "os.mkdir('made')",
    "os.system('true')",
    "subprocess.run(['true'])",
    "socket.socket()",
]


def test_the_worker_could_not_run_one_if_the_parser_let_it_through(tmp_path):
    attempts = "".join(f"try: {action}\nexcept (PermissionError, ValueError): print('refused')\n" for action in ACTIONS)
    code = (
        "import os, runpy, sys, io, sympy, socket, subprocess\nsys.stdin = io.StringIO('')\n"
        f"runpy.run_path({str(WORKER)!r}, run_name='__main__')\n{attempts}"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert result.stdout.splitlines() == ["ready", *["refused"] * len(ACTIONS)]
    assert not list(tmp_path.iterdir())


def test_nothing_is_printed(capfd):
    same_expression(r"\frac{", "7")
    same_expression("9" * 900, r"\sqrt{")
    assert capfd.readouterr() == ("", "")


def test_threads_get_the_answers_to_their_own_questions():
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: same_expression(f"{n} + {n % 3}", f"\\frac{{{2 * n}}}{{2}}"), range(60)))
    assert answers == [n % 3 == 0 for n in range(60)]


def _in_a_child(queue):
    queue.put([same_expression("3 + 4", "7"), same_expression("3 + 5", "7")])


def test_a_forked_process_has_a_worker_of_its_own():
    assert same_expression("3 + 4", "7") is True
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_in_a_child, args=(queue,))
    child.start()
    assert [same_expression(f"{n} + 1", "7") for n in range(10)] == [n == 6 for n in range(10)]
    assert queue.get() == [True, False]
    child.join()


def test_without_math_verify_the_pip_line_is_named(monkeypatch):
    monkeypatch.setattr(algebra.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'math_verify, which is not .*pip install "reasonvec\[eval\]"'):
        algebra._Algebra().compare("x + 1", "1 + x")
