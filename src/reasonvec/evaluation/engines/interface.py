"""What measuring wants of an engine: completions of prompts, and log-likelihoods of given continuations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

BROKEN = (
    "such a model computes nothing that could be graded. Its weights hold NaN, or its sums leave the range of its "
    "dtype, as with float16 or an alpha that is far too large. The outcomes before this batch are kept."
)
"""What stands behind every message on a result that is no number."""


@dataclass(frozen=True)
class Generated:
    """What a model wrote after a prompt."""

    text: str
    """Special tokens left out, cut at the first stop string."""
    tokens: int
    """Generated tokens, the end token included."""
    finished: bool
    """Whether it ended by itself, or at a stop string, rather than at the limit."""


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn."""

    samples: int = 1
    """Completions of each problem."""
    temperature: float = 0.0
    """0 takes the likeliest token."""
    seed: int = 0
    max_new_tokens: int = 1024

    def to_json(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "temperature": self.temperature,
            "seed": self.seed,
            "max_new_tokens": self.max_new_tokens,
        }


class Engine(Protocol):
    """A loaded model that answers; `transformers` here, vLLM where it is installed."""

    @property
    def batch_size(self) -> int:
        """Prompts that are answered together."""

    def describe(self) -> dict[str, Any]:
        """Name, dtype, device, versions: what outcomes may depend on besides the arm."""

    def generate(
        self, prompts: Sequence[str], *, sampling: Sampling, sample: int, stop: Sequence[str], chat: bool
    ) -> list[Generated]:
        """One completion of each of at most `batch_size` prompts, in their order.

        The same call gives the same completions, whatever was called before it. `chat` says that the prompts come from
        a chat template, which has put every special token already.
        """

    def log_likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Of each continuation after its context, in nats, summed over its tokens."""
