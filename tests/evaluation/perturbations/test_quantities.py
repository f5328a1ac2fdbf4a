"""Numbers in prose, against tables by hand and round trips."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonvec.evaluation.perturbations.quantities import (
    digit_tokens,
    quantities,
    replaced,
    word_values,
    write_in_words,
    write_like,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("16 eggs at $2.50", [(16, "number"), (Fraction("2.5"), "number")]),
        ("1,200, 300 and 1,23", [(1200, "number"), (300, "number"), (1, "number"), (23, "number")]),
        ("20% or 5 percent, 7 percentages", [(20, "percent"), (5, "percent"), (7, "number")]),
        ("3/4 of 1/0", [(Fraction(3, 4), "fraction"), (1, "number"), (0, "number")]),
        ("$.05 and 12.", [(Fraction("0.05"), "number"), (12, "number")]),
        ("12,3456", [(12, "number"), (3456, "number")]),
        ("no number, ٣", []),
    ],
)
def test_numbers_in_digits(text, found):
    assert [(quantity.value, quantity.kind) for quantity in quantities(text)] == found


@given(st.text("0123456789,./% ab$", max_size=30))
def test_places_of_numbers_hold_them(text):
    for quantity in quantities(text):
        token = text[quantity.start : quantity.end].replace(",", "")
        assert Fraction(f"0{token}") == quantity.value
    assert all(token in text for token in digit_tokens(text))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("Three cats", {3}), ("twenty-five", {20, 5, 25}), ("two hundred", {2, 100, 200}), ("twice", {2}),
        ("half", {Fraction(1, 2), 1, 2, Fraction(3, 2)}), ("a dozen", {12}),
        ("two thirds", {1, 2, Fraction(1, 3), 3, Fraction(2, 3), Fraction(4, 3), Fraction(5, 3)}),
        ("often", set()),
    ],
)  # fmt: skip
def test_numbers_in_words(text, values):
    assert set().union(*word_values(text)) == values


@pytest.mark.parametrize(("value", "words"), [(0, "zero"), (16, "sixteen"), (40, "forty"), (99, "ninety-nine")])
def test_written_in_words(value, words):
    assert write_in_words(value) == words


@pytest.mark.parametrize(
    ("value", "like", "text"),
    [(1234, "999", "1234"), (1234, "1,000", "1,234"), (12, "1,000", "12"), (Fraction("3.5"), "4.50", "3.50"),
     (Fraction("1234.5"), "1,000.00", "1,234.50"), (Fraction("0.05"), "2.25", "0.05")],
)  # fmt: skip
def test_a_number_in_the_form_of_another(value, like, text):
    assert write_like(Fraction(value), like) == text


def test_a_number_that_does_not_fit_the_form_is_refused():
    with pytest.raises(ValueError, match=r"1/3 does not have the 2 decimal places of '4.50'"):
        write_like(Fraction(1, 3), "4.50")


def test_pieces_are_put_in_whatever_their_order():
    assert replaced("abcdef", [(4, 5, ""), (0, 1, "XX"), (2, 2, "-")]) == "XXb-cdf"
