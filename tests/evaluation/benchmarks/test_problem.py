"""Gold answers as exact numbers, against `fractions` and `decimal`."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonvec.evaluation.benchmarks import exact_number, format_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", "18"), ("1,450,000", "1450000"), ("$1,234.50", "1234.5"), ("27.0", "27"), ("025", "25"), ("-3", "-3"),
        ("6/8", "0.75"), ("2/3", "2/3"), ("+7", "7"), ("0.10", "0.1"), (" 5 ", "5"), ("-0.5", "-0.5"),
        ("1,23", None), ("5:45", None), ("5 apples", None), ("", None), ("1/0", None), ("1e3", None), ("٣", None),
        ("nan", None), ("1_000", None),
    ],
)  # fmt: skip
def test_only_a_whole_text_that_is_a_number_is_one(text, number):
    assert exact_number(text) == number


@given(st.fractions())
def test_a_number_written_is_the_number_read(value):
    text = format_number(value)
    assert Fraction(text) == value
    assert exact_number(text) == text


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9))
def test_decimals_are_written_as_decimals(value):
    assert Decimal(format_number(Fraction(value))) == value
    assert "/" not in format_number(Fraction(value))
