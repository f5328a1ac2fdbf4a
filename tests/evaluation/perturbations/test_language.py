"""Rules for English, against sentences whose parts a person has marked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonvec.evaluation.perturbations.language import (
    context_and_question,
    has_formula,
    leans_on_a_name,
    opens_with_reference,
    person,
    sentences,
)


@pytest.mark.parametrize(
    "marked",
    [
        "Jo has 3 pens. | Al has 4.  | How many?",
        'Jo said "Stop." | Then she left! | Why?',
        "Mr. Lee met Dr. Wu at 5 p.m. in St. Ives. | He left.",
        "It weighs 5 lbs. 2 of them weigh 10.",
        "The U.S. Mint makes coins. | $5 is left.",
        "It costs 3.50 each. | 4 cost 14.",
        "J. R. has one.",
        "no capital. here",
    ],
)
def test_sentences(marked):
    assert sentences(marked.replace("| ", "")) == marked.replace("| ", "|").split("|")


@given(st.text("aA.?! \"'1\n", max_size=40))
def test_sentences_joined_are_the_text(text):
    assert "".join(sentences(text)) == text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("A b. C d. E?", 2),
        ("Is it? A b.", None),
        ("A? B?", None),
        ("A b. C d.", None),
        ("How many?", 0),
    ],
)
def test_a_question_at_the_end(text, parts):
    found = context_and_question(text)
    assert (None if found is None else len(found[0])) == parts


@pytest.mark.parametrize("text", ["She ran.", "Then Al ran.", '"He ran."', "The rest ran.", "The next day Al ran.",
                                  "However, Al ran.", "Half ran.", "This ran."])  # fmt: skip
def test_what_refers_back(text):
    assert opens_with_reference(text)


@pytest.mark.parametrize(
    "text", ["Al ran.", "The dog ran.", "Each box holds 5.", "On Monday Al ran.", "There are 5.", "5 ran."]
)
def test_what_stands_alone(text):
    assert not opens_with_reference(text)


@pytest.mark.parametrize(("text", "leans"), [("Today, she ran.", True), ("On Monday Anna lost her hat.", False),
                                             ("Anna has lost her hat.", False), ("The clerk told her.", True),
                                             ("The dog ran.", False)])  # fmt: skip
def test_he_and_she_before_a_name(text, leans):
    assert leans_on_a_name(text) is leans


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Every day Mira has 3 eggs.", "Mira"),
        ("They has 3. Tomas buys 4.", "Tomas"),
        ("A shop in Paris has 4.", None),
        ("The Eagles has 3.", None),
        ("On Monday was rain.", None),
        ("New York has 4 parks.", None),
        ("Nobody is there.", None),
    ],
)
def test_a_persons_name(text, name):
    assert person(text) == name


@pytest.mark.parametrize("text", ["Let $x$ be 3.", r"Find \frac12.", "[asy] draw; [/asy]", "a $9$-kilometer walk"])
def test_formulas(text):
    assert has_formula(text)


@pytest.mark.parametrize("text", ["It costs $5 and $6.", "He has $ 12 and $ 5.", "$.50, $.75"])
def test_money_is_no_formula(text):
    assert not has_formula(text)
