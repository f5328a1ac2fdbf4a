"""Word problems written for these tests in the manner of GSM8K, each with the formula that its answer follows."""

import ast
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from reasonvec.evaluation.benchmarks import BenchmarkProblem


@dataclass(frozen=True)
class Sample:
    """A problem, and the answer as a function of the question's numbers in digits, in their order."""

    problem: BenchmarkProblem
    formula: Callable[..., Fraction]


def _sample(name: str, question: str, solution: str, formula: Callable[..., Fraction]) -> Sample:
    gold = solution.rpartition("#### ")[2]
    return Sample(BenchmarkProblem(f"sample/{name}", "sample", question, gold, "number", solution), formula)


STRICT = (
    _sample(
        "marbles",
        "Mira has 14 marbles. Her brother gives her 6 marbles on each of 3 visits. How many marbles does Mira have "
        "now?",
        "He gives her 6*3=<<6*3=18>>18 marbles.\nMira has 14+18=<<14+18=32>>32 marbles.\n#### 32",
        lambda a, b, c: a + b * c,
    ),
    _sample(
        "bakery",
        "A bakery sells loaves for $4.50 each and rolls for $2 each. Tomas buys 8 loaves. Anna buys 15 rolls. How much "
        "do Tomas and Anna spend together, in dollars?",
        "Tomas spends 8*4.50=$<<8*4.50=36>>36.\nAnna spends 15 x 2=$<<15x2=30>>30.\n"
        "Together it is 36+30=$<<36+30=66>>66.\n#### 66",
        lambda a, b, c, d: a * c + b * d,
    ),
    _sample(
        "tank",
        "A tank holds 240 liters of water. A pump fills in 13 liters each minute. A leak loses 5 liters each minute. "
        "How long does it take, in minutes, until the empty tank is full?",
        "Each minute 13-5=<<13-5=8>>8 liters are gained.\nIt takes 240/8=<<240/8=30>>30 minutes.\n#### 30",
        lambda a, b, c: a / (b - c),
    ),
    _sample(
        "phone",
        "The phone that Dara likes costs $300. The shop takes 20% off. Dara also buys a case for $25. How much does "
        "Dara pay, in dollars?",
        "The discount is 300*.20=$<<300*.20=60>>60.\nThe phone is 300-60=$<<300-60=240>>240.\n"
        "In all it is 240+25=$<<240+25=265>>265.\n#### 265",
        lambda a, p, b: a * (1 - p / 100) + b,
    ),
    _sample(
        "trees",
        "A city that has 12,500 trees plants 310 more each month. Half of the new ones die. How many trees are there "
        "after 6 months?",
        "It plants 310*6=<<310*6=1860>>1,860 trees.\nThere live 1860*1/2=<<1860*1/2=930>>930.\n"
        "There are 12500+930=<<12500+930=13430>>13,430 trees.\n#### 13430",
        lambda a, b, c: a + b * c / 2,
    ),
)  # fmt: skip
"""Of the strict subset."""

NOT_STRICT = {
    "a number with two possible sources": _sample(
        "pens",
        "Lena has 5 pens. Omar has 5 pencils and 9 rulers. How many things do they have?",
        "5+5=<<5+5=10>>10\n10+9=<<10+9=19>>19\n#### 19",
        lambda a, b, c: a + b + c,
    ),
    "a number from nowhere": _sample(
        "train",
        "A train goes to a town 90 miles away and back. It goes 45 miles each hour. How many hours does it take?",
        "It is 90*2=<<90*2=180>>180 miles.\n180/45=<<180/45=4>>4\n#### 4",
        lambda a, b: 2 * a / b,
    ),
    "a number that no step uses": _sample(
        "ladder",
        "A ladder of 17 steps costs $80. Rosa buys 4 ladders. How much does she pay?",
        "80*4=<<80*4=320>>320\n#### 320",
        lambda a, b, c: b * c,
    ),
    "last annotation is not the answer": _sample(
        "cake", "Tim cuts 3 cakes into 8 pieces each. How many pieces are not eaten if 1 is?",
        "3*8=<<3*8=24>>24, so 23 are left.\n#### 23", lambda a, b, c: a * b - c,
    ),
    "a step without a calculation": _sample(
        "copy", "Nia has 11 hats and 20 caps. How many things has Nia?", "<<11=11>>11\n11+20=<<11+20=31>>31\n#### 31",
        lambda a, b: a + b,
    ),
    "an annotation that is not exact": _sample(
        "third",
        "Sven has 10 nuts for his 2 friends. How many nuts does each get?", "10/3=<<10/3=3.33>>3.33\n#### 3.33",
        lambda a, b: a / (b + 1),
    ),
    "an annotation that is not arithmetic": _sample(
        "words",
        "Ines has 10 plums and 2 pears. How many fruits has Ines?", "<<10 plus 2=12>>12\n#### 12", lambda a, b: a + b
    ),
    "no annotations": _sample(
        "bare", "Otto has 10 figs and 2 dates. How many fruits has Otto?", "10 + 2 is 12.\n#### 12", lambda a, b: a + b
    ),
    "no number that may change": _sample(
        "time", "The film starts at 3:30 and Jo has one ticket for her and two for others. How many tickets?",
        "1+2=<<1+2=3>>3\n#### 3", lambda a, b: Fraction(3),
    ),
}  # fmt: skip
"""One for each reason to be left out of it."""

ALL = (*STRICT, *NOT_STRICT.values())


def numbers_in(text: str) -> list[Fraction]:
    """The numbers in digits, read without the package."""
    return [Fraction(token.replace(",", "")) for token in re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", text)]


def evaluated(expression: str) -> Fraction:
    """An arithmetic expression's exact value, through Python's own parser."""
    operations = {ast.Add: Fraction.__add__, ast.Sub: Fraction.__sub__, ast.Mult: Fraction.__mul__,
                  ast.Div: Fraction.__truediv__}  # fmt: skip

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.BinOp):
            return operations[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp):
            return -value(node.operand)
        assert isinstance(node, ast.Constant)
        return Fraction(ast.get_source_segment(expression, node))

    return value(ast.parse(expression, mode="eval").body)


def real_data() -> Path:
    """The benchmarks' real files, which are not shipped."""
    where = os.environ.get("REASONVEC_DATA")
    if not where:
        pytest.skip("REASONVEC_DATA does not name a directory with the benchmarks' files")
    return Path(where)
