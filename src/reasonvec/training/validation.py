"""How a donor does on problems that it was not trained on: greedy accuracy by the grader, and the loss of the worked
answers. For a model that is whole on its device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from reasonvec.evaluation.generation import generate
from reasonvec.evaluation.grading import grade
from reasonvec.training.data import Example

BATCH = 64
"""Problems answered at once."""
LOSS_BATCH = 4
"""Worked answers at once: logits over a vocabulary of 150,000 take 0.6 GB for each thousand tokens."""


@dataclass(frozen=True)
class Validation:
    """What was found on the held-out problems."""

    problems: int
    accuracy: float
    loss: float | None
    """Nats a token; None where it was not asked for."""

    def to_json(self) -> dict[str, Any]:
        """As training.json keeps it."""
        return {"problems": self.problems, "accuracy": self.accuracy, "loss": self.loss}


def validate(model: Any, tokenizer: Any, examples: Sequence[Example], *, max_new_tokens: int, loss: bool) -> Validation:
    """Measure the model as it is; random states and training mode are left as they were."""
    return Validation(
        len(examples),
        accuracy(model, tokenizer, examples, max_new_tokens=max_new_tokens),
        answer_loss(model, examples, pad_token_id=tokenizer.pad_token_id) if loss else None,
    )


def accuracy(model: Any, tokenizer: Any, examples: Sequence[Example], *, max_new_tokens: int) -> float:
    """The share of `examples` that the model, answering greedily, gets right and ends."""
    completions = generate(
        model,
        [example.prompt_ids for example in examples],
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=max_new_tokens,
        batch_size=BATCH,
    )
    texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
    right = [
        bool(ids) and ids[-1] == tokenizer.eos_token_id and grade(example.problem, text).correct
        for example, ids, text in zip(examples, completions, texts, strict=True)
    ]
    return float(sum(right) / len(right))


@torch.inference_mode()  # type: ignore[untyped-decorator]
def answer_loss(model: Any, examples: Sequence[Example], *, pad_token_id: int) -> float:
    """Mean negative log-likelihood, in nats a token, of the worked answers and their end tokens."""
    was_training = model.training
    model.eval()
    total: float = 0.0
    tokens = 0
    order = sorted(examples, key=lambda example: len(example.prompt_ids) + len(example.answer_ids))
    for first in range(0, len(order), LOSS_BATCH):
        batch = order[first : first + LOSS_BATCH]
        longest = max(len(example.prompt_ids) + len(example.answer_ids) for example in batch)
        rows = [example.prompt_ids + example.answer_ids for example in batch]
        ids = torch.tensor([row + [pad_token_id] * (longest - len(row)) for row in rows], device=model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=model.device)
        logits = model(input_ids=ids, attention_mask=mask).logits.float()
        chances = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        for row, example in zip(chances, batch, strict=True):
            start = len(example.prompt_ids) - 1
            total -= float(row[start : start + len(example.answer_ids)].sum())
            tokens += len(example.answer_ids)
    model.train(was_training)
    return total / tokens
