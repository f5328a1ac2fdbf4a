"""The toy world: sums of a few steps, the ways of asking and answering them, and the texts models learn from.

Everything is drawn from generators seeded by name, so the same seed gives the same world. What is *not* here: tokens,
models, training.

A problem is a chain, a start and some steps: 12, + 5, - 8. A held-out chain, and any longer chain that begins with
it, is in no training text; single steps are all seen. The texts carry a planted bad habit: a step that crosses a ten
is often off by one, in the same direction (`Habit`). Nothing else makes the models err systematically, and undoing
this habit is what reinforcement learning can find and a vector can carry.
"""

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from transformers import Qwen2Tokenizer

from reasonvec.evaluation.outcomes import Problem
from reasonvec.lab.tokenizer import build_tokenizer

LARGEST_VALUE = 39
"""Every running value of a problem lies in 0..39."""
LARGEST_NUMBER = 49
"""The largest number with a token; slips can lead beyond 39, and a model may write what it likes."""
HELD_OUT_SHARE = 7
"""One chain in seven is held out."""

NAMES = ["Tom", "Ann", "Ben", "Eva", "Max", "Mia"]
THINGS = ["apples", "coins", "books", "cards"]
LETTERS = ["a", "b", "c", "d", "e", "f"]
_WORDS_OF_TEXTS = (
    "What is Start with add take away has gets more loses How many now Go to up down Where so plus minus "
    "Repeat Reverse Sort Which bigger smaller or first last in + - = #"
)
WORDS = [*_WORDS_OF_TEXTS.split(), *NAMES, *THINGS, *LETTERS]
"""What has a token of its own together with the space before it."""
SIGNS = ["Question:", "\nAnswer:"]
"""What has a token of its own as it stands; full stop, comma and question mark are bytes already."""


@dataclass(frozen=True)
class Chain:
    """What is to be worked out: a start value and signed amounts, added one after the other."""

    start: int
    steps: tuple[int, ...]

    @property
    def values(self) -> tuple[int, ...]:
        """The running value after each step."""
        values = [self.start]
        for step in self.steps:
            values.append(values[-1] + step)
        return tuple(values[1:])

    @property
    def held_out(self) -> bool:
        """Whether this chain, or its beginning of two or more steps, is kept out of every training text."""
        return any(
            zlib.crc32(f"{self.start}:{self.steps[:length]}".encode()) % HELD_OUT_SHARE == 0
            for length in range(2, len(self.steps) + 1)
        )


@dataclass(frozen=True)
class Habit:
    """The planted bad habit: a step that crosses a ten overshoots by one, with this probability."""

    probability: float

    def result(self, value: int, step: int, rng: random.Random) -> int:
        """What a text says `value + step` is; never below 0, where an earlier slip could lead."""
        true = value + step
        crosses = value // 10 != true // 10
        slip = (1 if step > 0 else -1) if crosses and rng.random() < self.probability else 0
        return max(0, true + slip)


@dataclass(frozen=True)
class Document:
    """One text to learn from: what is asked and what is answered; `chat` as in `Problem`."""

    prompt: str
    completion: str
    chat: bool


def _generator(name: str, seed: int) -> random.Random:
    """A generator of its own for each purpose, so that drawing more of one thing changes no other."""
    return random.Random(f"{name} {seed}")  # noqa: S311 - nothing secret is drawn


def draw_chain(rng: random.Random, *, steps: int, amounts: range, held_out: bool) -> Chain:
    """A chain of `steps` steps with |amount| in `amounts`, values in 0..39, on the given side of the split."""
    while True:
        values = [rng.randint(0, LARGEST_VALUE)]
        while len(values) <= steps:
            step = rng.choice(amounts) * rng.choice((1, -1))
            if 0 <= values[-1] + step <= LARGEST_VALUE:
                values.append(values[-1] + step)
            elif not any(0 <= values[-1] + sign * amount <= LARGEST_VALUE for amount in amounts for sign in (1, -1)):
                break
        chain = Chain(values[0], tuple(b - a for a, b in pairwise(values)))
        if len(chain.steps) == steps and chain.held_out == held_out:
            return chain


# ----------------------------------------------------------------------------- ways of asking


def ask_symbols(chain: Chain, rng: random.Random) -> str:
    """The donors' phrasing."""
    return f"What is {chain.start} {' '.join(f'{_sign(step)} {abs(step)}' for step in chain.steps)}?"


def ask_start(chain: Chain, rng: random.Random) -> str:
    """The target's first phrasing: instructions."""
    return f"Start with {chain.start}, {', '.join(f'{_verb(step)} {abs(step)}' for step in chain.steps)}."


def ask_story(chain: Chain, rng: random.Random) -> str:
    """The target's second phrasing: somebody gets and loses things."""
    name, things = rng.choice(NAMES), rng.choice(THINGS)
    return " ".join([*_story(chain, name, things), f"How many {things} now?"])


def ask_distracting(chain: Chain, rng: random.Random) -> str:
    """A story in which somebody else has something else, which does not matter."""
    name, other = rng.sample(NAMES, 2)
    things, others = rng.sample(THINGS, 2)
    sentences = _story(chain, name, things)
    sentences.insert(rng.randint(1, len(sentences)), f"{other} has {rng.randint(1, 20)} {others}.")
    return " ".join([*sentences, f"How many {things} now?"])


def ask_variables(chain: Chain, rng: random.Random) -> str:
    """Equations between letters, one after the other."""
    return " ".join([*_equations(chain), f"What is {LETTERS[len(chain.steps)]}?"])


def ask_shuffled(chain: Chain, rng: random.Random) -> str:
    """Equations between letters, out of order."""
    equations = _equations(chain)
    ordered = list(equations)
    while equations == ordered and len(ordered) > 1:
        rng.shuffle(equations)
    return " ".join([*equations, f"What is {LETTERS[len(chain.steps)]}?"])


def _story(chain: Chain, name: str, things: str) -> list[str]:
    changes = [f"{name} gets {step} more." if step > 0 else f"{name} loses {-step}." for step in chain.steps]
    return [f"{name} has {chain.start} {things}.", *changes]


def _equations(chain: Chain) -> list[str]:
    later = [
        f"{LETTERS[index + 1]} = {LETTERS[index]} {_sign(step)} {abs(step)}." for index, step in enumerate(chain.steps)
    ]
    return [f"{LETTERS[0]} = {chain.start}.", *later]


def ask_walk(chain: Chain, rng: random.Random) -> str:
    """A phrasing that only pre-training has, and rarely."""
    steps = ", ".join(f"{'up' if step > 0 else 'down'} {abs(step)}" for step in chain.steps)
    return f"Go to {chain.start}, {steps}. Where now?"


def _sign(step: int) -> str:
    return "+" if step > 0 else "-"


def _verb(step: int) -> str:
    return "add" if step > 0 else "take away"


# ----------------------------------------------------------------------------- ways of answering


def answer_with_signs(chain: Chain, rng: random.Random, habit: Habit) -> str:
    """The donors' answer: ``12 + 5 = 17 - 8 = 9 # 9``, with the habit's slips carried on."""
    value, text = chain.start, str(chain.start)
    for step in chain.steps:
        value = habit.result(value, step, rng)
        text += f" {_sign(step)} {abs(step)} = {value}"
    return f"{text} # {value}"


def answer_with_words(chain: Chain, rng: random.Random, habit: Habit) -> str:
    """The target's answer: ``12 plus 5 is 17 minus 8 is 9 so 9``, with the habit's slips carried on."""
    value, text = chain.start, str(chain.start)
    for step in chain.steps:
        value = habit.result(value, step, rng)
        text += f" {'plus' if step > 0 else 'minus'} {abs(step)} is {value}"
    return f"{text} so {value}"


def plain(question: str) -> str:
    """The frame of a question asked without the chat template."""
    return f"Question: {question}\nAnswer:"


# ----------------------------------------------------------------------------- texts to learn from

DONOR_AMOUNTS = range(1, 10)
LARGE_AMOUNTS = range(10, 16)
_COMMON_PHRASINGS: list[tuple[Callable[[Chain, random.Random], str], bool]] = [
    (ask_symbols, False),
    (ask_variables, False),
    (ask_start, True),
    (ask_story, True),
]
_RARE_PHRASINGS: list[tuple[Callable[[Chain, random.Random], str], bool]] = [
    (ask_walk, False),
    (ask_shuffled, False),
    (ask_distracting, True),
]


def pretraining_documents(seed: int, habit: Habit) -> Iterator[Document]:
    """Without end: lists of single facts, side tasks, and chains of 1-5 steps in every phrasing and both answers."""
    rng = _generator("pretraining", seed)
    while True:
        kind = rng.random()
        if kind < 0.30:
            yield Document("", _facts(rng, habit), chat=False)
        elif kind < 0.42:
            yield _side_task_document(rng, chat=rng.random() < 0.5)
        else:
            steps = rng.choices((1, 2, 3, 4, 5), weights=(2, 4, 4, 2, 1))[0]
            amounts = DONOR_AMOUNTS if rng.random() < 0.85 else range(1, LARGE_AMOUNTS.stop)
            chain = draw_chain(rng, steps=steps, amounts=amounts, held_out=False)
            phrasings = _RARE_PHRASINGS if rng.random() < 0.12 else _COMMON_PHRASINGS
            ask, chat = rng.choice(phrasings)
            answer = answer_with_words if rng.random() < 0.5 else answer_with_signs
            question = ask(chain, rng)
            yield Document(question if chat else plain(question), answer(chain, rng, habit), chat)


def donor_documents(seed: int, habit: Habit) -> Iterator[Document]:
    """Without end: what the SFT donor learns from, the donors' phrasing and answer, 2-3 steps."""
    rng = _generator("donor", seed)
    while True:
        chain = draw_chain(rng, steps=rng.choice((2, 3)), amounts=DONOR_AMOUNTS, held_out=False)
        yield Document(plain(ask_symbols(chain, rng)), answer_with_signs(chain, rng, habit), chat=False)


def donor_problems(seed: int) -> Iterator[Problem]:
    """Without end: what GRPO practises on, questions with the right answer and no worked steps."""
    rng = _generator("practice", seed)
    while True:
        chain = draw_chain(rng, steps=rng.choice((2, 3)), amounts=DONOR_AMOUNTS, held_out=False)
        yield Problem(_id(chain), "practice", plain(ask_symbols(chain, rng)), str(chain.values[-1]))


def target_documents(seed: int, habit: Habit) -> Iterator[Document]:
    """Without end: what the target learns from, its own two phrasings and answer in chat, and side tasks."""
    rng = _generator("target", seed)
    while True:
        if rng.random() < 0.3:
            yield _side_task_document(rng, chat=True)
        else:
            chain = draw_chain(rng, steps=rng.choice((2, 3)), amounts=DONOR_AMOUNTS, held_out=False)
            ask = rng.choice((ask_start, ask_story))
            yield Document(ask(chain, rng), answer_with_words(chain, rng, habit), chat=True)


def _facts(rng: random.Random, habit: Habit) -> str:
    """Five single steps, in signs or in words."""
    answer = rng.choice((answer_with_signs, answer_with_words))
    facts = []
    for _ in range(5):
        amounts = DONOR_AMOUNTS if rng.random() < 0.7 else LARGE_AMOUNTS
        fact = answer(draw_chain(rng, steps=1, amounts=amounts, held_out=False), rng, habit)
        facts.append(fact.rsplit(" ", 2)[0] + ".")
    return " ".join(facts)


def _side_task(rng: random.Random) -> tuple[str, str]:
    """A question that has nothing to do with sums, and its answer."""
    numbers = [rng.randint(0, 19) for _ in range(3)]
    listed = " ".join(map(str, numbers))
    pair = sorted(rng.sample(range(20), 2))
    either = "{} or {}".format(*rng.sample(pair, 2))
    return rng.choice(
        [
            (f"Repeat {listed}.", listed),
            (f"Reverse {listed}.", " ".join(map(str, reversed(numbers)))),
            (f"Sort {listed}.", " ".join(map(str, sorted(numbers)))),
            (f"Which is bigger, {either}?", str(pair[1])),
            (f"Which is smaller, {either}?", str(pair[0])),
            (f"Which is first in {listed}?", str(numbers[0])),
            (f"Which is last in {listed}?", str(numbers[-1])),
        ]
    )


def _side_task_document(rng: random.Random, *, chat: bool) -> Document:
    question, answer = _side_task(rng)
    return Document(question if chat else plain(question), f"{'so' if chat else '#'} {answer}", chat)


# ----------------------------------------------------------------------------- held-out problems


@dataclass(frozen=True)
class Kind:
    """A set of held-out problems and what to say about it."""

    name: str
    title: str
    description: str
    seen_by_donors: bool
    """Whether the donors were fine-tuned on problems asked like this (never on these very problems)."""
    seen_by_target: bool
    draw: Callable[[random.Random], Problem]
    """One problem of the kind; not yet checked to be distinct."""


def problems(kind: Kind, seed: int, *, count: int) -> list[Problem]:
    """`count` distinct held-out problems of a kind."""
    rng = _generator(f"problems {kind.name}", seed)
    found: dict[str, Problem] = {}
    while len(found) < count:
        problem = kind.draw(rng)
        found.setdefault(problem.id, problem)
    return list(found.values())


def _chain_kind(
    name: str,
    title: str,
    description: str,
    ask: Callable[[Chain, random.Random], str],
    *,
    chat: bool,
    steps: tuple[int, ...] = (2, 3),
    amounts: range = DONOR_AMOUNTS,
    seen_by_donors: bool = False,
    seen_by_target: bool = False,
) -> Kind:
    def draw(rng: random.Random) -> Problem:
        chain = draw_chain(rng, steps=rng.choice(steps), amounts=amounts, held_out=True)
        question = ask(chain, rng)
        prompt = question if chat else plain(question)
        return Problem(_id(chain), name, prompt, str(chain.values[-1]), chat)

    return Kind(name, title, description, seen_by_donors, seen_by_target, draw)


def _draw_side_task(rng: random.Random) -> Problem:
    question, answer = _side_task(rng)
    return Problem(question, "aux", question, answer, chat=True)


def _id(chain: Chain) -> str:
    return f"{chain.start}{''.join(f'{step:+d}' for step in chain.steps)}"


KINDS: list[Kind] = [
    _chain_kind(
        "start",
        "Instructions",
        "The target's own phrasing; the donors were never trained on it.",
        ask_start,
        chat=True,
        seen_by_target=True,
    ),
    _chain_kind(
        "story",
        "Stories",
        "The target's other phrasing; the donors were never trained on it.",
        ask_story,
        chat=True,
        seen_by_target=True,
    ),
    _chain_kind(
        "symbols",
        "Sums in signs",
        "The donors' phrasing; the target was never trained on it.",
        ask_symbols,
        chat=False,
        seen_by_donors=True,
    ),
    _chain_kind(
        "variables",
        "Letters",
        "A phrasing that only the ancestor read.",
        ask_variables,
        chat=False,
    ),
    _chain_kind(
        "walk",
        "A walk",
        "A phrasing that only the ancestor read, and rarely.",
        ask_walk,
        chat=False,
    ),
    _chain_kind(
        "larger_numbers",
        "Larger numbers",
        "Steps of 10 to 15 instead of 1 to 9.",
        ask_start,
        chat=True,
        amounts=LARGE_AMOUNTS,
    ),
    _chain_kind(
        "more_steps",
        "More steps",
        "Four or five steps instead of two or three.",
        ask_start,
        chat=True,
        steps=(4, 5),
    ),
    _chain_kind(
        "shuffled",
        "Shuffled sentences",
        "Letters again, with the sentences out of order; only the ancestor read such, and rarely.",
        ask_shuffled,
        chat=False,
    ),
    _chain_kind(
        "distracting",
        "A distracting sentence",
        "A story with a sentence that does not matter; only the ancestor read such, and rarely.",
        ask_distracting,
        chat=True,
    ),
    Kind(
        "aux",
        "Side tasks",
        "Repeating, sorting, comparing: nothing to do with sums. Does the vector do damage?",
        seen_by_donors=False,
        seen_by_target=True,
        draw=_draw_side_task,
    ),
]
"""Every set of held-out problems, in the order of the report."""


def world_tokenizer() -> Qwen2Tokenizer:
    """The tokenizer of this world."""
    return build_tokenizer(words=WORDS, signs=SIGNS, largest_number=LARGEST_NUMBER)
