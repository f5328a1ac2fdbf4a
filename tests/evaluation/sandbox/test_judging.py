"""Verdicts of honest programs are those of running them beside their tests, in one process, without a sandbox."""

import ast
import os
import random
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reasonvec.errors import BenchmarkError
from reasonvec.evaluation.benchmarks import BenchmarkProblem, load_benchmark
from reasonvec.evaluation.programs import ProgramGrade, grade_program
from reasonvec.evaluation.sandbox import judge
from tests.evaluation.sandbox.attack import processes
from tests.evaluation.sandbox.hostile import EXHAUSTING, HONEST, PROMPT, TEST

REPOSITORY = Path(__file__).parents[3]
CATCHING = "try:\n    add(1, 2)\nexcept {}:\n    pass\n"


def run(source, test=TEST, prompt=PROMPT, entry_point="add", timeout_s=20.0):
    return judge(source, entry_point=entry_point, prompt=prompt, test=test, timeout_s=timeout_s)


def beside(source, test, prompt="", entry_point="answer"):
    """The verdict of one process, as other tools come to it."""
    names = {"__name__": "tests"}
    exec(source, names)
    exec(test, names)
    try:
        names["check"](names[entry_point])
    except AssertionError:
        return "wrong answer"
    except Exception as error:  # noqa: BLE001 (as a program may raise any)
        return f"raised {type(error).__name__}"
    return "passed"


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("return collections.Counter('aab')", "{'a': 2, 'b': 1}"),
        ("return collections.OrderedDict(b=1, a=2)", "{'a': 2, 'b': 1}"),
        ("return collections.defaultdict(int, a=2)", "{'a': 2}"),
        ("return collections.namedtuple('P', 'x y')(1, 2)", "(1, 2)"),
        ("return [collections.namedtuple('P', 'x y')(1, 2)]", "[(1, 2)]"),
        ("return enum.IntEnum('C', 'A').A", "1"),
        ("return (1, 2)", "[1, 2]"),
        ("return [1, 2]", "(1, 2)"),
        ("return True", "1"),
        ("return 1.0", "1"),
        ("return '1'", "1"),
        ("return {1, 2}", "{2, 1}"),
        ("return frozenset({1})", "{1}"),
        ("return {(1, 2): {3: [4.5, None]}}", "{(1, 2): {3: [4.5, None]}}"),
        ("return 2 ** 200", "2 ** 200"),
        ("return math.factorial(3000)", "math.factorial(3000)"),
        ("return 0.1 + 0.2", "0.3"),
        ("return 0.1 + 0.2", "0.30000000000000004"),
        ("return float('inf')", "math.inf"),
        ("return float('nan')", "math.nan"),
        ("return 'caf\\u00e9\\ud800'", "'caf\\u00e9\\ud800'"),
        ("return b'x'", "b'x'"),
        ("return 1j", "1j"),
        ("return None", "None"),
        ("return undefined", "1"),
        ("return [][0]", "1"),
        ("raise ValueError('no')", "1"),
        ("class Mine(KeyError):\n        pass\n    raise Mine", "1"),
        ("print('text'); return 1", "1"),
        ("import dataclasses, typing\n    return dataclasses.astuple(dataclasses.make_dataclass('D', 'x')(1))", "(1,)"),
        ("random.seed(1)\n    return random.random()", "random.Random(1).random()"),
    ],
)
def test_a_verdict_is_that_of_one_process(holding, body, wanted):
    source = f"import collections, enum, math, random\ndef answer():\n    {body}\n"
    test = f"import math, random\ndef check(candidate):\n    assert candidate() == {wanted}\n"
    assert run(source, test, "", "answer") == beside(source, test)


@pytest.mark.parametrize(
    ("source", "test", "verdict"),
    [
        ("def add(a, b):\n    raise ValueError(a)", CATCHING.format("ValueError"), "passed"),
        ("def add(a, b):\n    return 3", f"{CATCHING.format('ValueError')}else:\n    assert False\n", "wrong answer"),
        ("class Mine(KeyError):\n    pass\ndef add(a, b):\n    raise Mine", CATCHING.format("KeyError"), "passed"),
        ("import os\ndef add(a, b):\n    os._exit(0)", CATCHING.format("BaseException"), "ended early"),
        ("def add(a, *, b):\n    return a + b", "assert add(1, b=2) == 3", "passed"),
        (HONEST, "assert add(1, 2) == 3", "passed"),
        (HONEST, "assert add(1, 2) == 4", "wrong answer"),
        (HONEST, "assert all(map(add, [1, 2], [3, 4]))", "passed"),
        ("def add(a, b):\n    raise StopIteration", "assert all(map(add, [1], [2]))", "raised StopIteration"),
        ("def add(a, b):\n    a.append(b); return a", "x = [1]\nassert add(x, 2) == [1, 2] and x == [1]", "passed"),
        ("n = []\ndef add(a, b):\n    n.append(a); return len(n)", "assert [add(1, 1), add(1, 1)] == [1, 2]", "passed"),
        ("subtract = 1", "assert add(1, 2) == 3", "raised KeyError"),
        ("def add(a, b)", "assert add(1, 2) == 3", "raised SyntaxError"),
        ("if __name__ == '__main__':\n    1/0\n" + HONEST, "assert add(1, 2) == 3", "passed"),
        (HONEST, "1/0", "broken tests: ZeroDivisionError: division by zero"),
        (HONEST, "import numpy", "broken tests: ModuleNotFoundError: No module named 'numpy'"),
        (HONEST, "def check(candidate)", "broken tests: SyntaxError: expected '' (tests line 1)"),
        (HONEST, "assert True", "broken tests: they never call the function"),
        (HONEST, "def check(candidate):\n    pass", "broken tests: they never call the function"),
        (HONEST, "add(object(), 1)", "wrong answer"),
    ],
)  # fmt: skip
def test_the_tests_see_what_the_function_does(holding, source, test, verdict):
    assert run(source, test) == verdict


def test_tests_may_use_what_the_question_defines_and_draw_the_same_numbers_every_time(holding):
    prompt = "import math\n\ndef half(x):\n    return x / 2\n\ndef doubled(x):\n    ''' Twice x. '''\n"
    test = (
        "import random\ndef check(candidate):\n    for _ in range(9):\n        x = random.random()\n"
        "        assert math.isclose(half(candidate(x)), x)\n    assert random.random() == {}\n"
    )
    draw = random.Random(0)
    tenth = [draw.random() for _ in range(10)][-1]
    assert run("def doubled(x):\n    return 2 * x", test.format(tenth), prompt, "doubled") == "passed"


def test_the_tests_of_a_stranger_are_confined_too(holding, tmp_path):
    tmp_path.chmod(0o777)
    for attack, error in (
        (f"open({str(tmp_path / 'new')!r}, 'w')", "PermissionError"),
        ("import os; os.fork()", "PermissionError"),
        ("open('/etc/passwd')", "PermissionError"),
    ):
        assert run(HONEST, attack).startswith(f"broken tests: {error}")
    assert run(HONEST, "import os; os._exit(0)") == "refused: the tests ended without a verdict"
    assert run(HONEST, "while True: pass", timeout_s=1.0) == "timed out"
    assert list(tmp_path.iterdir()) == []


MINIATURES = [  # (prompt, right, wrong, asserts)
    ("def is_even(n: int) -> bool:\n    '''Whether n is even.'''\n", "    return n % 2 == 0\n", "    return n % 2\n",
     "assert candidate(4) is True\n    assert candidate(3) is False"),
    ("def words(text: str) -> dict:\n    '''How often each word is there.'''\n",
     "    from collections import Counter\n    return Counter(text.split())\n", "    return set(text.split())\n",
     "assert candidate('a b a') == {'a': 2, 'b': 1}"),
    ("from typing import List\n\n\ndef mean(xs: List[float]) -> float:\n    '''Their mean.'''\n",
     "    return sum(xs) / len(xs)\n", "    return sum(xs)\n", "assert abs(candidate([1.0, 2.0]) - 1.5) < 1e-6"),
    ("def flat(xs):\n    '''Lists within lists, as one.'''\n",
     "    return [y for x in xs for y in (flat(x) if isinstance(x, list) else [x])]\n", "    return sum(xs, [])\n",
     "assert candidate([1, [2, [3]]]) == [1, 2, 3]"),
    ("import math\n\n\ndef root(x):\n    '''The root, None below 0.'''\n",
     "    return math.sqrt(x) if x >= 0 else None\n", "    return math.sqrt(x)\n",
     "assert candidate(9) == 3\n    assert candidate(-1) is None"),
    ("def fib(n):\n    '''The n-th Fibonacci number.'''\n",
     "    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n",
     "    return n if n < 2 else 1\n", "assert candidate(10) == 55\n    assert candidate(10000) % 10 ** 5 == 66875"),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "right", "wrong", "asserts"), MINIATURES)
def test_problems_in_miniature(holding, prompt, right, wrong, asserts):
    name = prompt.partition("def ")[2].partition("(")[0]
    details = {"entry_point": name, "test": f"def check(candidate):\n    {asserts}\n"}
    problem = BenchmarkProblem(f"mini/{name}", "mini", prompt, right, "program", details=details)
    assert grade_program(problem, right) == ProgramGrade(True, prompt + right, "passed")
    chat = f"Sure:\n```python\n{prompt}{right}```\nEnjoy!"
    assert grade_program(problem, chat).correct
    grade = grade_program(problem, wrong)
    assert not grade.correct
    assert grade.reason in ("wrong answer", "raised ValueError", "raised TypeError")


def test_tests_that_cannot_run_are_no_grade(holding):
    problem = BenchmarkProblem("mine/3", "mine", PROMPT, "", "program",
                               details={"entry_point": "add", "test": "import numpy"})  # fmt: skip
    with pytest.raises(BenchmarkError, match="mine/3: broken tests: ModuleNotFoundError.*No program could pass"):
        grade_program(problem, "    return a + b")


def open_files():
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_many_at_once_get_the_verdicts_they_get_alone(holding):
    names = (
        "takes all memory",
        "forks without end",
        "starts 100,000 threads",
        "sleeps",
        "opens without end",
        "crashes",
    )
    hostile = [EXHAUSTING[name] for name in names]
    programs = [(HONEST, "passed"), *hostile] * 3
    before = processes(), open_files()
    with ThreadPoolExecutor(6) as pool:
        verdicts = list(pool.map(lambda one: run(one[0], timeout_s=1.0 if one[1] == "timed out" else 30.0), programs))
    assert verdicts == [verdict for _, verdict in programs]
    assert (processes(), open_files()) == before


def test_a_grader_that_is_killed_leaves_no_process(holding):
    code = f"from tests.evaluation.sandbox.attack import run\nrun({EXHAUSTING['sleeps'][0]!r}, timeout_s=300)"
    before = processes()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(REPOSITORY)])}
    grader = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        deadline = time.monotonic() + 60
        while len(processes() - before) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)  # so that both are confined, and the program asleep
        assert len(processes() - before) == 2
    finally:
        grader.send_signal(signal.SIGKILL)
        grader.wait()
    deadline = time.monotonic() + 60
    while processes() - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes() - before == set()


def test_the_sandbox_and_the_graders_of_programs_need_no_torch():
    code = (
        "import sys, reasonvec.evaluation.programs, reasonvec.evaluation.sandbox.report\n"
        "print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.stdout == "[]\n"


@pytest.mark.skipif("REASONVEC_DATA" not in os.environ, reason="REASONVEC_DATA names no directory of benchmark files")
def test_all_canonical_solutions_of_humaneval_pass(holding):
    problems = load_benchmark("humaneval", data=Path(os.environ["REASONVEC_DATA"])).problems
    with ThreadPoolExecutor(2) as pool:
        alone = list(pool.map(lambda problem: grade_program(problem, problem.gold), problems))
        empty = list(pool.map(lambda problem: grade_program(problem, "    return None\n"), problems[:40]))
    assert [(problem.id, grade.reason) for problem, grade in zip(problems, alone, strict=True)] == [
        (problem.id, "passed") for problem in problems
    ]
    for problem, grade in zip(problems, alone, strict=True):
        assert ast.dump(ast.parse(grade.program)) == ast.dump(ast.parse(problem.question + problem.gold))
    assert not any(grade.correct for grade in empty), "none of the first 40 wants None"


def test_a_grader_with_thousands_of_open_files_grades_as_well(holding):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("this host permits fewer than 2048 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        assert run(HONEST) == "passed"
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
