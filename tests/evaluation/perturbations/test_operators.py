"""What every operator promises, on hand-written problems with any seed: numbers that stay, right gold answers."""

import re
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonvec.evaluation.benchmarks import BenchmarkProblem
from reasonvec.evaluation.perturbations.change import Inapplicable, Others, Perturbed
from reasonvec.evaluation.perturbations.sentences import ABSTAIN
from reasonvec.evaluation.perturbations.suite import OPERATORS, perturb_problem
from tests.evaluation.word_problems import ALL, STRICT, evaluated, numbers_in

OTHERS = Others(tuple(sorted((sample.problem for sample in ALL), key=lambda problem: problem.id)))
BY_ID = {sample.problem.id: sample for sample in ALL}
KEEPING = [name for name, entry in OPERATORS.items() if entry.keeps_numbers]
SAME_GOLD = ["typo", "surface", "number-format", "shuffle", "distract-off", "distract-in"]
seeds = st.integers(-(2**70), 2**70)
samples = st.sampled_from(ALL)
prose = st.text("aAbB '’.,?!$%-/0123456789\n½é", max_size=80)


def plain(question):
    return BenchmarkProblem("x", "x", question, "3", "number")


def changed(sample, operator, severity, seed, others=OTHERS):
    return perturb_problem(sample.problem, operator=operator, severity=severity, seed=seed, others=others)


def every(operator):
    return [pytest.param(severity, id=f"{operator}-{severity}") for severity in range(1, severities(operator) + 1)]


def severities(operator):
    return len(OPERATORS[operator].severities)


def tokens(text):
    return Counter(re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", text))


@pytest.mark.parametrize("operator", KEEPING)
@given(samples, seeds, st.data())
def test_numbers_in_digits_stay(operator, sample, seed, data):
    severity = data.draw(st.integers(1, severities(operator)))
    result = changed(sample, operator, severity, seed)
    if isinstance(result, Perturbed):
        assert tokens(result.question) == tokens(sample.problem.question)
        assert result.question != sample.problem.question


@pytest.mark.parametrize("operator", KEEPING)
@given(prose, seeds)
def test_numbers_in_digits_stay_in_any_text(operator, question, seed):
    result = perturb_problem(plain(question), operator=operator, severity=1, seed=seed, others=Others())
    if isinstance(result, Perturbed):
        assert tokens(result.question) == tokens(question)


@pytest.mark.parametrize("operator", OPERATORS)
@given(prose, seeds)
def test_any_text_is_changed_or_left_out(operator, question, seed):
    result = perturb_problem(plain(question), operator=operator, severity=severities(operator), seed=seed,
                             others=OTHERS)  # fmt: skip
    assert isinstance(result, Inapplicable) == (not hasattr(result, "edits"))


@pytest.mark.parametrize("operator", SAME_GOLD)
@given(samples, seeds, st.data())
def test_rewording_keeps_gold_and_solution(operator, sample, seed, data):
    result = changed(sample, operator, data.draw(st.integers(1, severities(operator))), seed)
    if isinstance(result, Perturbed):
        assert (result.gold, result.solution) == (sample.problem.gold, sample.problem.solution)
        assert result.gold_changed is False
        assert result.edits
        assert result.question != sample.problem.question


@pytest.mark.parametrize("operator", OPERATORS)
@given(samples, seeds)
def test_severity_0_is_the_problem_as_it_is_where_severity_1_applies(operator, sample, seed):
    unchanged = changed(sample, operator, 0, seed)
    assert isinstance(unchanged, Perturbed) == isinstance(changed(sample, operator, 1, seed), Perturbed)
    if isinstance(unchanged, Perturbed):
        assert unchanged == Perturbed(sample.problem.question, (), sample.problem.gold, sample.problem.solution)


@pytest.mark.parametrize("operator", OPERATORS)
@given(samples, seeds)
def test_the_same_seed_changes_the_same(operator, sample, seed):
    assert changed(sample, operator, 1, seed) == changed(sample, operator, 1, seed)


@pytest.mark.parametrize("operator", ["typo", "shuffle-all", "distract-off", "distract-in", "numbers", "compose"])
def test_other_seeds_change_otherwise(operator):
    sample = BY_ID["sample/bakery"]
    assert len({changed(sample, operator, 1, seed).question for seed in range(20)}) > 3


@pytest.mark.parametrize(("severity", "share"), [(1, 0.05), (2, 0.1), (3, 0.2)])
@given(seeds)
def test_typing_errors_are_as_many_as_they_should_be(severity, share, seed):
    words = ["window", "garden", "bottle", "market"] * 25
    problem = plain("The " + " ".join(words) + " each half three percent fewer Anna 12?")
    result = perturb_problem(problem, operator="typo", severity=severity, seed=seed, others=Others())
    assert len(result.edits) == share * 100
    before, after = problem.question.split(), result.question.split()
    assert sum(a != b for a, b in zip(before, after, strict=True)) == share * 100
    assert after[0] == "The"
    assert after[101:] == before[101:]
    for edit in result.edits:
        word, new = edit["from"], edit["to"]
        assert problem.question[edit["at"] :].startswith(word)
        kinds = {"swap": 0, "delete": -1, "repeat": 1, "neighbour": 0}
        assert len(new) - len(word) == kinds[edit["kind"]]
        if edit["kind"] == "swap":
            assert sorted(new) == sorted(word)


def test_surface_changes_only_what_it_says():
    result = perturb_problem(plain("On Monday, Jo paid $1,200, then 5."), operator="surface", severity=1, seed=0,
                             others=Others())  # fmt: skip
    assert result.question == "on  monday  jo  paid  $1,200  then  5."


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Jo has 16 eggs.", "Jo has sixteen eggs."), ("Jo has sixteen eggs.", "Jo has 16 eggs."),
        ("16 eggs. 3 are red.", "Sixteen eggs. Three are red."), ("It costs $1200.", "It costs $1,200."),
        ("It costs $1,200.50 or 1,200.", "It costs $1,200.50 or 1200."), ("Twenty-five men", "25 men"),
        ("two hundred and 5 dozen, 3 thirds, four", "two hundred and 5 dozen, 3 thirds, 4"),
        ("$16, 16%, 3.5, 3/4, 1st, 5:30, 2-liter, one of 7", "$16, 16%, 3.5, 3/4, 1st, 5:30, 2-liter, one of seven"),
        ("in 1999 and 1500", "in 1999 and 1,500"), ("007 and 12", "007 and twelve"),
    ],
)  # fmt: skip
def test_numbers_in_another_form(before, after):
    result = perturb_problem(plain(before), operator="number-format", severity=1, seed=0, others=Others())
    assert result.question == after


def test_numbers_in_another_form_twice_are_the_first_form():
    for text in ("Jo has 16 eggs.", "It costs $1200.", "I see 45 cats."):
        there = perturb_problem(plain(text), operator="number-format", severity=1, seed=0, others=Others())
        back = perturb_problem(plain(there.question), operator="number-format", severity=1, seed=0, others=Others())
        assert back.question == text


@given(samples, seeds)
def test_shuffling_moves_whole_sentences_and_the_question_stays_last(sample, seed):
    result = changed(sample, "shuffle-all", 1, seed)
    if isinstance(result, Perturbed):
        split = re.compile(r"(?<=[.?]) +")
        before, after = split.split(sample.problem.question), split.split(result.question)
        assert sorted(before) == sorted(after)
        assert before[-1] == after[-1]
        assert after[:-1] == [before[place] for place in result.edits[0]["order"]]
        assert result.gold_changed is None
        assert result.solution is None


def test_a_sentence_that_refers_back_is_not_moved():
    text = "Jo has 3 pens. {} Al has 5. How many?"
    for middle in ("She buys 4.", "Then Jo buys 4.", "The rest is 4.", "On Monday she buys 4.", "Kim also buys 4."):
        result = perturb_problem(plain(text.format(middle)), operator="shuffle", severity=1, seed=0, others=Others())
        assert result == Inapplicable("a sentence refers to the one before")
    result = perturb_problem(plain(text.format("Kim buys 4.")), operator="shuffle", severity=1, seed=0, others=Others())
    assert isinstance(result, Perturbed)


@pytest.mark.parametrize(("severity", "count"), [(1, 1), (2, 2), (3, 4)])
@given(seeds)
def test_sentences_off_the_topic_share_no_name_and_come_before_the_question(severity, count, seed):
    facts = [("Zed", "buys", "murals"), ("Quin", "has", "ferns"), ("Bob", "sells", "boats"), ("Ida", "makes", "kites"),
             ("Mira", "finds", "stamps"), ("Ute", "owns", "marbles")]  # fmt: skip
    others = Others(tuple(
        BenchmarkProblem(f"o/{n}", "o", f"{who} {does} {n + 21} {what} now. She rests. How many?", "1", "number")
        for n, (who, does, what) in enumerate(facts)
    ))  # fmt: skip
    sample = BY_ID["sample/marbles"]  # about Mira, and about marbles
    result = changed(sample, "distract-off", severity, seed, others)
    added = [edit["to"] for edit in result.edits]
    assert len(set(added)) == count
    assert not any("Mira" in sentence or "marbles" in sentence or "She" in sentence for sentence in added)
    rest = result.question
    for sentence in added:
        assert rest.count(sentence + " ") == 1
        rest = rest.replace(sentence + " ", "")
    assert rest == sample.problem.question
    assert {edit["origin"] for edit in result.edits} <= {f"o/{n}" for n in range(4)}


@pytest.mark.parametrize("asked", ["How many do they have?", "How many pens is that altogether?"])
def test_a_question_about_everybody_takes_no_new_person(asked):
    problem = plain(f"Jo has 3 pens. Al has 5 pens. {asked}")
    others = Others((BenchmarkProblem("o", "o", "Zed buys 3 murals each day. How many?", "3", "number"),))
    result = perturb_problem(problem, operator="distract-off", severity=1, seed=0, others=others)
    assert result == Inapplicable("the question is about everybody")
    named = plain("Jo has 3 pens. Al has 5 pens. How many do Jo and Al have together?")
    assert isinstance(perturb_problem(named, operator="distract-off", severity=1, seed=0, others=others), Perturbed)


@given(seeds)
def test_nobody_new_comes_before_he_or_she(seed):
    problem = plain("Joan has 3 pens today. Then she buys 5. How many does she have?")
    others = Others((BenchmarkProblem("o", "o", "Zed sells 3 murals each time. How many?", "3", "number"),))
    result = perturb_problem(problem, operator="distract-off", severity=1, seed=seed, others=others)
    assert result.question == f"Zed sells 3 murals each time. {problem.question}"


def test_too_few_sentences_off_the_topic_are_said_so():
    others = Others((plain("Zed buys 3 murals each day. The shop takes 20% off. How many?"),))
    sample = BY_ID["sample/marbles"]
    assert isinstance(changed(sample, "distract-off", 1, 0, others), Perturbed)
    assert changed(sample, "distract-off", 2, 0, others) == Inapplicable(
        "too few sentences of other problems are off its topic"
    )
    assert isinstance(changed(sample, "distract-off", 1, 0, Others()), Inapplicable)


@given(seeds)
def test_a_sentence_in_the_topic_has_the_name_and_a_number_of_its_size(seed):
    sample = BY_ID["sample/bakery"]
    own = numbers_in(sample.problem.question)
    for severity in (1, 2):
        result = changed(sample, "distract-in", severity, seed)
        (edit,) = result.edits
        (number,) = numbers_in(edit["to"])
        assert "Tomas" in edit["to"]
        assert number not in own
        assert (min(own) - 1 <= number <= max(own)) if severity == 1 else (20 * max(own) <= number <= 100 * max(own))
        assert result.question.replace(edit["to"] + " ", "") == sample.problem.question
        assert result.question.index("Tomas") <= result.question.index(edit["to"]) < result.question.index("How much")


@pytest.mark.parametrize("sample", STRICT, ids=lambda sample: sample.problem.id)
@pytest.mark.parametrize(("severity", "low", "high"), [(1, Fraction(1, 2), 2), (2, 5, 20), (3, 500, 2000)])
@given(seed=seeds)
def test_new_numbers_give_the_answer_of_the_formula(sample, severity, low, high, seed):
    result = changed(sample, "numbers", severity, seed)
    if isinstance(result, Inapplicable):
        assert result.reason == "no valid numbers in 200 draws"
        return
    before, after = numbers_in(sample.problem.question), numbers_in(result.question)
    assert Fraction(result.gold) == sample.formula(*after) != Fraction(sample.problem.gold)
    assert result.gold_changed is True
    for edit in result.edits:
        old, new = numbers_in(edit["from"])[0], numbers_in(edit["to"])[0]
        assert new != old
        # numbers stay above 1 and on the grid of their decimals, which can lift the lower end
        assert low * old <= new <= max(high * old, 3)
    assert len(before) == len(after)
    assert sum(old != new for old, new in zip(before, after, strict=True)) == len(result.edits)
    steps = [(evaluated(left), Fraction(right)) for left, right in re.findall(r"<<(.*?)=(.*?)>>", result.solution)]
    assert all(left == right > 0 for left, right in steps)
    assert steps[-1][1] == Fraction(result.gold)
    originals = [
        Fraction(right.replace(",", "")) for _, right in re.findall(r"<<(.*?)=(.*?)>>", sample.problem.solution)
    ]
    assert all(right.denominator == 1 for (_, right), old in zip(steps, originals, strict=True) if old.denominator == 1)


@pytest.mark.parametrize("severity", [1, 2])
@given(st.sampled_from(STRICT), seeds)
def test_a_chain_gives_the_answer_of_its_formulas(severity, sample, seed):
    result = changed(sample, "compose", severity, seed)
    if isinstance(result, Inapplicable):
        assert result.reason == "no valid chain in 200 draws"
        return
    heads = [edit for edit in result.edits if edit["kind"] == "compose"]
    letters = [edit for edit in result.edits if edit["kind"] == "letter"]
    assert [head["letter"] for head in heads] == ["X", "Y"][:severity]
    assert len(letters) == severity
    assert len({head["origin"] for head in heads} | {sample.problem.id}) == severity + 1
    value = Fraction(BY_ID[heads[0]["origin"]].problem.gold)
    for edit in letters:
        link = BY_ID[edit["origin"]]
        assert Fraction(edit["value"]) == value
        question = link.problem.question
        put_in = question[: edit["at"]] + str(value) + question[edit["at"] + len(edit["from"]) :]
        value = link.formula(*numbers_in(put_in))
        assert question[: edit["at"]] + edit["to"] + question[edit["at"] + len(edit["from"]) :] in result.question
    assert Fraction(result.gold) == value
    assert result.question.startswith(f"Let X be the answer to: {BY_ID[heads[0]['origin']].problem.question}")
    assert result.question.count("Let Y be the answer to: ") == severity - 1


@given(st.sampled_from(STRICT), seeds)
def test_without_a_premise_no_answer_can_be_given(sample, seed):
    result = changed(sample, "premise", 1, seed)
    (edit,) = result.edits
    assert result.gold == ABSTAIN == "cannot be determined"
    assert result.solution is None
    assert numbers_in(edit["from"])
    assert " ".join(result.question.split()) == " ".join(sample.problem.question.replace(edit["from"], "").split())
    assert result.question.endswith("?")


def test_the_question_itself_is_never_removed():
    solution = "4*5=<<4*5=20>>20\n#### 20"
    problem = BenchmarkProblem("x", "x", "Jo likes tea. How much do 4 cups at $5 cost?", "20", "number", solution)
    result = perturb_problem(problem, operator="premise", severity=1, seed=0, others=Others())
    assert result == Inapplicable("every number stands in the question itself")


@pytest.mark.parametrize("operator", ["typo", "surface", "number-format", "shuffle-all", "distract-off", "distract-in"])
def test_formulas_are_left_alone(operator):
    problem = plain("Let $x$ be 16 apples that Tomas has today. Tomas has 1200 pears, too. How many are there?")
    result = perturb_problem(problem, operator=operator, severity=1, seed=0, others=OTHERS)
    assert result == Inapplicable("holds a formula")
