"""Programs in completions: what a person would take as the answer, run without a sandbox to see what it computes."""

import ast
import subprocess
import sys
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonvec.errors import BenchmarkError
from reasonvec.evaluation.benchmarks import BenchmarkProblem
from reasonvec.evaluation.programs import ProgramGrade, extract_program, grade_program

PROMPT = '''from typing import List


def largest(numbers: List[int]) -> int:
    """ The largest of them.
    >>> largest([1, 3, 2])
    3
    """
'''
TEST = "def check(candidate):\n    assert candidate([1, 3, 2]) == 3\n    assert candidate([-5]) == -5\n"
SIGNATURE = "def largest(numbers: List[int]) -> int:\n"
BODY = """\
    best = numbers[0]
    for number in numbers:
        if number > best:
            best = number
    return best
"""
ZERO = "def largest(numbers):\n    return 0\n"  # a draft


def problem(question=PROMPT, test=TEST, entry_point="largest", gold=BODY):
    return BenchmarkProblem(
        "mine/0", "mine", question, gold, "program", details={"entry_point": entry_point, "test": test}
    )


COMPLETIONS = {
    "the question goes on": BODY,
    "one line of it": "    return max(numbers)",
    "with Windows line ends": BODY.replace("\n", "\r\n"),
    "with tabs": BODY.replace("    ", "\t"),
    "with empty lines before": "\n\n" + BODY,
    "the first line's indentation lost": BODY.lstrip(),
    "the first line's indentation lost, one line": "return max(numbers)",
    "all indentation lost": "best = numbers[0]\nfor n in numbers:\n    best = max(n, best)\nreturn best\n",
    "all indentation lost, and words after": "best = max(numbers)\nreturn best\n\nThis works since max is built in.",
    "words after the body": BODY + "\nThis function's loop looks at every number.",
    "another function after the body": BODY + "\ndef smallest(numbers):\n    return min(numbers)\n",
    "another function after the body, cut off": BODY + "\n\ndef smallest(numbers: List[int]) -> int:\n    return (",
    "an example after the body": BODY + "\nprint(largest([]))\n",
    "a main block after the body": BODY + "\nif __name__ == '__main__':\n    print(largest([]))\n",
    "a fence after the body": BODY + "```\n\nThis works.",
    "a fence after the body, and an example in another": BODY + "```\nUse it:\n```python\nlargest([])\n```\n",
    "a helper after the body": "    return biggest(numbers)\n\n\ndef biggest(numbers):\n    return max(numbers)\n",
    "a comment first": "    # the built-in does it\n    return max(numbers)\n",
    "defined anew": f"{SIGNATURE}{BODY}",
    "defined anew, the docstring repeated": PROMPT + BODY,
    "defined anew, with imports of its own": "import heapq\n\ndef largest(ns):\n    return heapq.nlargest(1, ns)[0]\n",
    "defined anew, after words": f"Here is the function:\n\n{SIGNATURE}{BODY}\nI hope it's what you want!",
    "defined anew, from the future": f"from __future__ import annotations\n\n{SIGNATURE}{BODY}",
    "an assignment": "import functools\nlargest = functools.partial(max)\n",
    "in a fence": f"```python\n{SIGNATURE}{BODY}```",
    "in a fence without a language": f"```\n{SIGNATURE}{BODY}```",
    "in a fence named py": f"```py\n{SIGNATURE}{BODY}```",
    "in a fence named Python": f"```Python\n{SIGNATURE}{BODY}```",
    "in a fence of four": f"````python\n{SIGNATURE}{BODY}````",
    "in a fence, between words": f"Sure! Here's how:\n\n```python\n{SIGNATURE}{BODY}```\n\nIt's linear.",
    "in a fence that is never closed": f"Sure!\n```python\n{SIGNATURE}{BODY}",
    "in a fence, Windows line ends": f"Sure!\n```python\n{SIGNATURE}{BODY}```\n".replace("\n", "\r\n"),
    "in an indented fence": "1. Write:\n   ```python\n   def largest(ns):\n       return max(ns)\n   ```\n",
    "the body alone in a fence": f"The body is\n```python\n{BODY}```",
    "the body alone in a fence, not indented": "```python\nbest = max(numbers)\nreturn best\n```",
    "an example in a second fence": f"```python\n{SIGNATURE}{BODY}```\nSo\n```python\nprint(largest([]))\n```",
    "its output in a second fence": f"```python\n{SIGNATURE}{BODY}```\nIt prints\n```\n3\n```",
    "a draft, then the answer": f"```python\n{ZERO}```\nThat is wrong.\n```python\n{SIGNATURE}{BODY}```",
    "a helper in a fence of its own": "```python\ndef biggest(ns):\n    return max(ns)\n```\nand\n"
    "```python\ndef largest(numbers):\n    return biggest(numbers)\n```",
    "a helper in a fence after it": "```python\ndef largest(numbers):\n    return biggest(numbers)\n```\nwith\n"
    "```python\ndef biggest(ns):\n    return max(ns)\n```",
    "a shell command in a fence": f"```bash\npip install nothing\n```\n```python\n{SIGNATURE}{BODY}```",
    "examples and tests after it": f"```python\n{SIGNATURE}{BODY}\nassert largest([]) == 0\nresult = largest([])\n"
    "import pytest\ndef test_it():\n    pytest.fail()\nfor case in [[]]:\n    print(largest(case))\n```",
    "a constant before it and one after": "```python\nLOW = -10**9\ndef largest(ns):\n"
    "    return max([LOW, *ns][START:])\nSTART = 1\n```",
    "a call before it": "```python\nimport sys\nsys.setrecursionlimit(2000)\ndef largest(ns):\n    return max(ns)\n```",
    "a decorator": "```python\nfrom functools import wraps\ndef same(f):\n    return wraps(f)(lambda *a: f(*a))\n\n"
    "@same\ndef largest(numbers):\n    return max(numbers)\n```",
    "a class beside it": "```python\nclass Best:\n    def of(self, ns):\n        return max(ns)\n\n"
    "def largest(numbers):\n    return Best().of(numbers)\n```",
    "notes in think tags": f"<think>\n```python\n{ZERO}```\nNo.</think>\n{SIGNATURE}{BODY}",
    "an invalid escape": "    '\\d'\n    return max(numbers)\n",
    "the question's import is used": "```\ndef largest(numbers):\n    return max(numbers) if List else 0\n```",
}  # fmt: skip


@pytest.mark.parametrize("completion", COMPLETIONS.values(), ids=COMPLETIONS)
def test_a_program_is_found_as_a_person_would(completion):
    program = extract_program(problem(), completion)
    names = {"__name__": "program"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an invalid escape
        exec(compile(program, "program", "exec"), names)
    exec(TEST, names)
    names["check"](names["largest"])


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "   \n\n",
        "I cannot answer that.",
        "Done",
        "The answer is 3.",
        "    pass",
        '    """ Nothing more. """',
        "```\n3\n```",
        "```bash\nls\n```",
        "def smallest(numbers):\n    return min(numbers)\n",
    ],
)
def test_a_completion_without_code_for_the_function_is_no_program(completion):
    assert extract_program(problem(), completion) is None
    assert grade_program(problem(), completion) == ProgramGrade(False, None, "no program")


@pytest.mark.parametrize(
    "completion",
    [
        "    return max(numbers\n",
        "    for number in numbers\n        return number\n",
        f"```python\n{SIGNATURE}    return (numbers[0]\n```",
        f"Sure:\n\n{SIGNATURE}    best = numbers[0]\n    if best >",
        "    return '\0'",
    ],
)
def test_a_function_that_is_no_python_is_not_mended(completion):
    program = extract_program(problem(), completion)
    assert "numbers" in program
    with pytest.raises((SyntaxError, ValueError)):
        compile(program, "program", "exec")


def test_what_the_question_defines_comes_first_but_not_its_empty_function():
    question = "import math\n\n\ndef half(x):\n    return x / 2\n\n\ndef floored(x):\n    '''Half of x, floored.'''\n"
    program = extract_program(
        problem(question, entry_point="floored"), "def floored(x):\n    return math.floor(half(x))"
    )
    wanted = "import math\ndef half(x):\n    return x / 2\ndef floored(x):\n    return math.floor(half(x))\n"
    assert ast.dump(ast.parse(program)) == ast.dump(ast.parse(wanted))


def test_a_question_in_plain_words_is_answered_by_a_definition_alone():
    words = problem("Write a function largest(numbers). It's for a list.")
    assert extract_program(words, f"```python\n{SIGNATURE}{BODY}```") == SIGNATURE + BODY
    assert extract_program(words, "    return max(numbers)") is None


@given(st.text(st.sampled_from(list("def largest(numbers):\n    return `'\"#\\[]{}=@,0aé\r\t")), max_size=200))
@settings(deadline=None)
def test_any_text_has_a_program_or_none_and_the_same_one_each_time(completion):
    program = extract_program(problem(), completion)
    assert program is None or program.endswith("\n") or "largest" in program
    assert extract_program(problem(), completion) == program


def test_no_text_crashes_the_parser():
    hostile = {  # each crashed or hung some version of Python, or an expression that looks for fences
        "brackets": "'(' * 50000",
        "signs": "'-' * 100000 + '1'",
        "attributes": "'x' + '.a' * 10000",
        "calls": "'x' + '()' * 10000",
        "lambdas": "'lambda:' * 10000 + '1'",
        "sums": "'1' + '+1' * 10000",
        "fences": "'```\\n' * 10000",
        "blanks": "'``` ' + ' ' * 100000 + '`'",
        "quotes": '"It\'s\\n" * 5000',
        "surrogates": "'\\ud800'",
        "format strings": "\"f'\" + '{x:' * 5000",
    }
    code = (
        "from reasonvec.evaluation.benchmarks import BenchmarkProblem\n"
        "from reasonvec.evaluation.programs import extract_program\n"
        "problem = BenchmarkProblem('p', 'p', 'def f(x):\\n', '', 'program', "
        "details={'entry_point': 'f', 'test': ''})\n"
        f"for text in [{', '.join(hostile.values())}]:\n"
        "    for before in ('', '    return '): extract_program(problem, before + text)\n"
        "print('alive')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "alive\n", result.stderr[-500:]


@pytest.mark.parametrize(
    ("details", "kind", "message"),
    [
        ({"test": TEST}, "program", "mine/0 cannot be graded by running it: its `entry_point` is None"),
        ({"entry_point": "largest"}, "program", "its `test` is None"),
        ({"entry_point": "a; b", "test": TEST}, "program", "its `entry_point` is 'a; b'"),
        ({"entry_point": "largest", "test": TEST}, "number", "its kind number"),
    ],
)
def test_a_problem_that_is_not_a_program_is_an_error(details, kind, message):
    with pytest.raises(BenchmarkError, match=message):
        grade_program(BenchmarkProblem("mine/0", "mine", PROMPT, BODY, kind, details=details), BODY)
