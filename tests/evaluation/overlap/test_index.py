"""Normalising, and the search for runs of words against a search in plain Python."""

import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonvec.evaluation.overlap.index import RUN, SEPARATOR, Find, RunIndex, normalised

VOCABULARY = ["a", "bb", "cat", "12", "tenletters", "morethanseventeenletters", "morethanseventeenletterz", "é"]
texts = st.lists(st.lists(st.sampled_from(VOCABULARY), max_size=40).map(" ".join), min_size=1, max_size=6)


def found_by_hand(questions, documents):
    """Every (text, problem, run, place), by comparing lists of words."""
    finds, place = [], 0
    for number, document in enumerate(documents):
        words = document.split()
        for start in range(len(words)):
            for problem, question in enumerate(questions):
                looked_for = question.split()
                length = min(RUN, len(looked_for))
                finds += [
                    Find(number, problem, run, place + start)
                    for run in range(len(looked_for) - length + 1 if looked_for else 0)
                    if words[start : start + length] == looked_for[run : run + length]
                ]
        place += len(words) + 1
    return sorted(finds)


@given(texts, texts)
def test_runs_are_those_that_a_plain_comparison_finds(questions, documents):
    index = RunIndex(questions)
    assert sorted(index.find([normalised(document) for document in documents])) == found_by_hand(questions, documents)


def test_words_that_begin_alike_are_told_apart():
    index = RunIndex(["morethanseventeenletters " * 8])
    assert not index.find([b"morethanseventeenletterz " * 8])
    assert index.find([b"morethanseventeenletters " * 8])


def test_no_run_spans_two_texts():
    question = "one two three four five six seven eight"
    assert RunIndex([question]).find([b"one two three four", b"five six seven eight"]) == []
    assert len(RunIndex([question]).find([b"x", question.encode(), b"y"])) == 1


def test_a_run_that_two_problems_share_is_no_ones_own():
    shared = "a b c d e f g h"
    index = RunIndex([f"{shared} x", f"{shared} y", "z"])
    assert index.runs == [2, 2, 1]
    assert index.distinctive_runs() == [{1}, {1}, {0}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Janet's  ducks, LAY\t16\neggs!", "janet s ducks lay 16 eggs"),
        ("Janet’s “ducks” — lay", "janet s ducks lay"),
        ("ﬁve １２ Straße", "five 12 strasse"),
        ("1,200.50", "1 200 50"),
        ("a_b\x00c\x01d", "a b c d"),
        ("café Ünï", "café ünï"),
        ("\\frac{1}{2}", "frac 1 2"),
        ("你好，世界", "你好 世界"),
        ("\ud800 half", "half"),
        ("", ""),
    ],
)
def test_normalised(text, words):
    assert normalised(text).decode().split() == words.split()


@given(st.text())
def test_normalised_text_never_holds_the_separator_and_stays_as_it_is(text):
    once = normalised(text)
    assert SEPARATOR not in once
    assert normalised(once.decode("utf-8", "replace")).split() == once.split()


@given(st.text(st.characters(codec="ascii")))
def test_ascii_letters_and_digits_stay(text):
    expected = "".join(letter.lower() if letter.isalnum() else " " for letter in text).split()
    assert normalised(text).decode().split() == expected


@given(st.text(st.sampled_from("aéÉﬁ1²'’. "), max_size=12))
def test_composed_or_not_a_text_has_the_same_words(text):
    assert normalised(unicodedata.normalize("NFD", text)) == normalised(unicodedata.normalize("NFC", text))


def test_many_runs_are_all_found():
    generator = random.Random(0)
    questions = [" ".join(generator.choices([f"w{n}" for n in range(500)], k=30)) for _ in range(300)]
    finds = RunIndex(questions).find([normalised(question) for question in questions])
    assert {(find.text, find.problem, find.run) for find in finds} >= {
        (n, n, run) for n in range(300) for run in range(23)
    }
