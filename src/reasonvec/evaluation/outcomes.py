"""The two values evaluation passes around: a problem, and the outcome of one model on it. No behaviour beyond that."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One question with its answer, in the words in which it is put to every arm."""

    id: str
    """Unique among the problems of one kind; pairs the outcomes of two arms."""
    kind: str
    """Name of the set it belongs to."""
    prompt: str
    """What is asked: the user's message if `chat`, else the whole text before the completion."""
    gold: str
    """The right answer, as a grader compares it."""
    chat: bool = False
    """Whether the prompt goes through the tokenizer's chat template."""


@dataclass(frozen=True)
class Outcome:
    """What one arm wrote for one problem, and its grade."""

    problem: Problem
    completion: str
    """Decoded text, special tokens left out."""
    finished: bool
    """Whether the model ended its answer itself, rather than being cut off at the length limit."""
    correct: bool
