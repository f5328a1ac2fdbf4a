"""Operators that move, add or remove whole sentences: shuffle, shuffle-all, distract-off, distract-in, premise."""

from fractions import Fraction
from functools import lru_cache

from reasonvec.evaluation.benchmarks import BenchmarkProblem
from reasonvec.evaluation.perturbations.change import Inapplicable, Others, Perturbed, reworded
from reasonvec.evaluation.perturbations.language import (
    asks_about_everybody,
    asks_for_something,
    capitalised,
    content_words,
    context_and_question,
    has_formula,
    has_pronoun,
    leans_on_a_name,
    opens_with_reference,
    person,
    sentences,
    tells_what_came_next,
    words,
)
from reasonvec.evaluation.perturbations.program import NoProgram, strict_program
from reasonvec.evaluation.perturbations.quantities import quantities
from reasonvec.evaluation.perturbations.stream import RandomStream

OFF_TOPIC_SENTENCES = {1: 1, 2: 2, 3: 4}
"""Severity -> sentences that distract-off adds."""
ABSTAIN = "cannot be determined"
"""The gold answer where a premise is missing: graded as abstention, apart from all others."""
_ATTEMPTS = 400
_SENTENCE_WORDS = (5, 20)

_TEMPLATES = (
    ("house", "The number of {name}'s house is {number}."),
    ("locker", "The number on {name}'s locker is {number}."),
    ("library", "The number on {name}'s library card is {number}."),
    ("raffle", "Last year {name} had raffle ticket number {number}."),
    ("bus", "A cousin of {name} rides bus number {number}."),
    ("jersey", "The jersey that {name} once wore had the number {number}."),
)
"""(the noun that the question must not hold, sentence). Labels rather than amounts, so any size is natural."""


def shuffle(problem: BenchmarkProblem, severity: int, stream: RandomStream, others: Others) -> Perturbed | Inapplicable:
    """Another order of the sentences before the question, which stays last.

    Only where no sentence but the first opens with a pronoun or connective, says `he` or `she` before a name, or has a
    word such as `then` or `remaining`: none is tied to the ones before.
    """
    parts = context_and_question(problem.question)
    if parts and any(_is_tied(sentence) for sentence in parts[0][1:]):
        return Inapplicable("a sentence refers to the one before")
    return _shuffled(problem, stream)


def _is_tied(sentence: str) -> bool:
    return opens_with_reference(sentence) or leans_on_a_name(sentence) or tells_what_came_next(sentence)


def shuffle_all(
    problem: BenchmarkProblem, severity: int, stream: RandomStream, others: Others
) -> Perturbed | Inapplicable:
    """The same without the guard. It is not meaning-preserving: nobody knows whether the gold answer still holds."""
    changed = _shuffled(problem, stream)
    if isinstance(changed, Inapplicable):
        return changed
    return Perturbed(changed.question, changed.edits, problem.gold, None, gold_changed=None)


def _shuffled(problem: BenchmarkProblem, stream: RandomStream) -> Perturbed | Inapplicable:
    if has_formula(problem.question):
        return Inapplicable("holds a formula")
    parts = context_and_question(problem.question)
    if parts is None:
        return Inapplicable("does not end with its only question")
    context, asked = [part.strip() for part in parts[0]], parts[1].strip()
    if len(context) < 2:
        return Inapplicable("fewer than two sentences before the question")
    identity = list(range(len(context)))
    order = identity
    if len(set(context)) == 1:
        return Inapplicable("its sentences are all the same")
    while [context[place] for place in order] == context:
        order = stream.shuffled(identity)
    question = " ".join([*(context[place] for place in order), asked])
    return reworded(problem, question, [{"kind": "order", "order": order}])


def distract_off(
    problem: BenchmarkProblem, severity: int, stream: RandomStream, others: Others
) -> Perturbed | Inapplicable:
    """1, 2 or 4 sentences of other problems, at seeded places before the question.

    Each is about a person that this problem does not name, shares no content word with it and has no pronoun. A
    question about `they` or `all` that names nobody would count the new person in, so the problem is left out.
    """
    if has_formula(problem.question):
        return Inapplicable("holds a formula")
    parts = [part.strip() for part in sentences(problem.question)]
    if asks_about_everybody(" ".join(parts[_asking(parts) :])):
        return Inapplicable("the question is about everybody")
    places = _places_before_the_question(parts)
    pool = _distractors(others)
    if not pool:
        return Inapplicable("no other problem has a sentence to take")
    taken: list[tuple[str, str]] = []
    names, topics = set(capitalised(problem.question)), set(content_words(problem.question))
    for _ in range(_ATTEMPTS):
        if len(taken) == OFF_TOPIC_SENTENCES[severity]:
            break
        origin, sentence = stream.choose(pool)
        if origin == problem.id or capitalised(sentence) & names or content_words(sentence) & topics:
            continue
        taken.append((origin, sentence))
        names |= capitalised(sentence)
        topics |= content_words(sentence)
    if len(taken) < OFF_TOPIC_SENTENCES[severity]:
        return Inapplicable("too few sentences of other problems are off its topic")
    put = [(stream.choose(places), origin, sentence) for origin, sentence in taken]
    return _with_sentences(problem, parts, put)


def distract_in(
    problem: BenchmarkProblem, severity: int, stream: RandomStream, others: Others
) -> Perturbed | Inapplicable:
    """One sentence about somebody in the problem with a number that is a label: of the size of the question's own
    numbers, or 20 to 100 times the largest of them."""
    if has_formula(problem.question):
        return Inapplicable("holds a formula")
    name = person(problem.question)
    if name is None:
        return Inapplicable("no person is named")
    here = content_words(problem.question) | set(words(problem.question))
    templates = [text for noun, text in _TEMPLATES if noun not in here]
    own = [quantity.value for quantity in quantities(problem.question)]
    if not own or not templates:
        return Inapplicable("no number or no template to go by")
    number = _label(own, severity, stream)
    if number is None:
        return Inapplicable("no number of its size is free")
    parts = [part.strip() for part in sentences(problem.question)]
    named = next((place for place, part in enumerate(parts) if name in part), 0)
    places = [place for place in _places_before_the_question(parts) if place > named]
    sentence = stream.choose(templates).format(name=name, number=number)
    return _with_sentences(
        problem, parts, [(stream.choose(places or _places_before_the_question(parts)), "template", sentence)]
    )


def premise(problem: BenchmarkProblem, severity: int, stream: RandomStream, others: Others) -> Perturbed | Inapplicable:
    """A sentence that holds a number which the solution needs is gone; the right answer is that none can be given.

    Only in the strict subset, where that number has one source and so is nowhere else in the question.
    """
    try:
        program = strict_program(problem)
    except NoProgram as reason:
        return Inapplicable(str(reason))
    parts = sentences(problem.question)
    asked = _asking(parts)
    ends = [sum(map(len, parts[: place + 1])) for place in range(len(parts))]
    holding = {
        next(place for place, end in enumerate(ends) if program.quantities[index].start < end)
        for index in program.changeable
    }
    removable = sorted(place for place in holding if place < asked and len(parts) > 1)
    if not removable:
        return Inapplicable("every number stands in the question itself")
    gone = stream.choose(removable)
    question = "".join(part for place, part in enumerate(parts) if place != gone).strip()
    edit = {"kind": "premise", "at": ends[gone] - len(parts[gone]), "from": parts[gone].strip(), "to": ""}
    return Perturbed(question, (edit,), ABSTAIN, None, gold_changed=True)


def _asking(parts: list[str]) -> int:
    """Which sentence asks: the first with a question mark at its end, else the last."""
    return next((place for place, part in enumerate(parts) if part.rstrip().endswith("?")), max(len(parts) - 1, 0))


def _places_before_the_question(parts: list[str]) -> list[int]:
    """Where a sentence may be put in, as the number of sentences before it: not where the next one refers back."""
    return [0] + [
        place
        for place in range(1, _asking(parts) + 1)
        if not opens_with_reference(parts[place]) and not leans_on_a_name(parts[place])
    ]


def _with_sentences(problem: BenchmarkProblem, parts: list[str], put: list[tuple[int, str, str]]) -> Perturbed:
    """The problem with (place, origin, sentence) put in; those of one place keep their order."""
    lines = list(parts)
    for place, _, sentence in sorted(put, key=lambda one: one[0], reverse=True):
        lines.insert(place, sentence)
    edits = [{"kind": "sentence", "before": place, "origin": origin, "to": sentence} for place, origin, sentence in put]
    return reworded(problem, " ".join(lines), list(edits))


def _label(own: list[Fraction], severity: int, stream: RandomStream) -> int | None:
    """A whole number that is none of the question's: between its smallest and largest, widened to twice the range where
    that leaves no room, or 20 to 100 times the largest."""
    largest = max(2, int(max(own)))
    low, high = (20 * largest, 100 * largest) if severity == 2 else (max(2, int(min(own))), largest)
    if high - low < len(own) + 2:
        low, high = 2, 2 * high + 2
    for _ in range(_ATTEMPTS):
        number = stream.between(low, high)
        if Fraction(number) not in own:
            return number
    return None


@lru_cache(maxsize=4)
def _distractors(others: Others) -> tuple[tuple[str, str], ...]:
    """(id, sentence) of every sentence that can stand in another problem."""
    found = []
    for other in others.problems:
        if has_formula(other.question):
            continue
        for part in map(str.strip, sentences(other.question)):
            length = len(part.split())
            if not part.endswith(".") or not _SENTENCE_WORDS[0] <= length <= _SENTENCE_WORDS[1]:
                continue
            if has_pronoun(part) or opens_with_reference(part) or asks_for_something(part):
                continue
            # `The shop takes 20% off.` would change any price; what begins with a name is about that person
            name = person(part)
            if name is None or not part.startswith(name):
                continue
            found.append((other.id, part))
    return tuple(found)
