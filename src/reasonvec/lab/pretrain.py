"""Pre-training of the lab's common ancestor: a small loop of its own, so that it ends within a minute on one core.

Fine-tuning and GRPO, which users run on their own models, go through TRL instead (`reasonvec.training`).
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import islice
from math import cos, pi, sqrt

import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

from reasonvec.lab.recipe import Pretraining
from reasonvec.lab.world import Document


def pretrain(
    model: Qwen2ForCausalLM,
    tokenizer: Qwen2Tokenizer,
    documents: Iterator[Document],
    settings: Pretraining,
    *,
    on_step: Callable[[int, float], None],
) -> None:
    """Train `model` in place to answer `documents`; `on_step` hears of every step and its loss.

    The loss is on the answers: what a question asks for is drawn at random, and predicting it teaches nothing.
    """
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "layers" in name]
    in_matrices = {id(weight) for weight in matrices}
    rest = [weight for weight in model.parameters() if id(weight) not in in_matrices]
    muon = Muon(matrices, momentum=0.95)
    adamw = torch.optim.AdamW(rest, lr=settings.adamw_learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    model.train()
    with ThreadPoolExecutor(_THREADS) as threads:
        for step, texts in enumerate(_batches(tokenizer, documents, settings)):
            share = _schedule(step, settings)
            loss = _set_gradient(model, texts, tokenizer.pad_token_id, threads)
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            muon.step(settings.muon_learning_rate * share)
            adamw.param_groups[0]["lr"] = settings.adamw_learning_rate * share
            adamw.step()
            on_step(step + 1, loss)
    model.eval()


_THREADS, _PARTS = 2, 3
"""Gradients of a batch's parts, by length so that little is padding, are worked out side by side.

On two cores that takes half the time; torch's own threads inside each operation gain a tenth at this size, and lose a
lot where the cores are shared. The sum is in a fixed order, so the result depends on neither.
"""

Text = tuple[list[int], list[int]]
"""Token ids of a question and of its answer."""


class Muon:
    """Momentum whose every step is replaced by the nearest orthogonal matrix; for 2-D weights only.

    Jordan et al. 2024, kellerjordan.github.io/posts/muon. torch.optim.Muon orthogonalises one matrix at a time in
    bfloat16, 2.5 times slower on a CPU without bfloat16 units than all matrices of one shape at once in float32.
    """

    def __init__(self, weights: Iterable[Tensor], *, momentum: float) -> None:
        self.momentum = momentum
        self.by_shape: dict[torch.Size, list[Tensor]] = {}
        for weight in weights:
            self.by_shape.setdefault(weight.shape, []).append(weight)
        self.velocity = {shape: torch.zeros(len(same), *shape) for shape, same in self.by_shape.items()}

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, learning_rate: float) -> None:
        """One update from the weights' gradients; `learning_rate` is scaled by sqrt(max(1, rows / columns))."""
        for shape, weights in self.by_shape.items():
            gradient = torch.stack([weight.grad for weight in weights])
            velocity = self.velocity[shape].lerp_(gradient, 1 - self.momentum)
            nesterov = gradient.lerp(velocity, self.momentum)
            scale = learning_rate * sqrt(max(1, shape[0] / shape[1]))
            for weight, update in zip(weights, orthogonalised(nesterov), strict=True):
                weight.sub_(update, alpha=scale)


def orthogonalised(matrices: Tensor) -> Tensor:
    """About the nearest orthogonal matrix of each, (count, rows, columns) float32: singular values near 1.

    Five Newton-Schulz steps with the coefficients of Muon's reference, which trade accuracy for speed.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrices.mT if matrices.shape[-2] > matrices.shape[-1] else matrices
    x = wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if matrices.shape[-2] > matrices.shape[-1] else x


def _schedule(step: int, settings: Pretraining) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine down to 5 %."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return 0.05 + 0.95 * (1 + cos(pi * done)) / 2


def _batches(tokenizer: Qwen2Tokenizer, documents: Iterator[Document], settings: Pretraining) -> Iterator[list[Text]]:
    """`settings.steps` batches of texts as token ids."""
    for _ in range(settings.steps):
        batch = list(islice(documents, settings.batch))
        questions = tokenizer([_question(document) for document in batch])["input_ids"]
        answers = tokenizer([f" {document.completion}{tokenizer.eos_token}" for document in batch])["input_ids"]
        yield list(zip(questions, answers, strict=True))


def _question(document: Document) -> str:
    return f"<|user|> {document.prompt}<|assistant|>" if document.chat else document.prompt


def _set_gradient(model: Qwen2ForCausalLM, texts: list[Text], pad_token_id: int, threads: Executor) -> float:
    """Set the model's gradient to that of the mean loss per answer token, and return this loss."""
    texts = sorted(texts, key=lambda text: -len(text[0]) - len(text[1]))
    tokens = sum(len(answer) for _, answer in texts)
    size = -(-len(texts) // _PARTS)
    parameters = list(model.parameters())

    def part(first: int) -> tuple[float, tuple[Tensor, ...]]:
        some = texts[first : first + size]
        ids, labels = _pad(some, pad_token_id)
        # causal attention never looks right, where the padding is: no mask is needed
        mean = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss = mean * (sum(len(answer) for _, answer in some) / tokens)
        return loss.item(), torch.autograd.grad(loss, parameters)

    parts = list(threads.map(part, range(0, len(texts), size)))
    for parameter, *gradients in zip(parameters, *(gradients for _, gradients in parts), strict=True):
        parameter.grad = torch.stack(gradients).sum(0)
    return sum(loss for loss, _ in parts)


def _pad(texts: list[Text], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Ids and labels, (texts, longest) int64, padded on the right; labels leave out questions and padding."""
    longest = max(len(question) + len(answer) for question, answer in texts)
    ids, labels = [], []
    for question, answer in texts:
        padding = longest - len(question) - len(answer)
        ids.append(question + answer + [pad_token_id] * padding)
        labels.append([-100] * len(question) + answer + [-100] * padding)
    return torch.tensor(ids), torch.tensor(labels)
