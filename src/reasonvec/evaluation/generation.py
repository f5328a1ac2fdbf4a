"""Text from a model: batched generation with a key-value cache, greedy for measuring, sampled for GRPO.

One loop serves both, so the model is trained on what is measured. It gives the tokens of transformers' own greedy
`generate` at a fraction of its overhead on small models; no beam search, no stop strings, one device.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from reasonvec.evaluation.grading import Grader, grade_marked_answer, is_correct
from reasonvec.evaluation.outcomes import Outcome, Problem
from reasonvec.evaluation.prompts import PromptStyle, render


def evaluate_checkpoint(
    checkpoint: Path,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int,
    batch_size: int = 512,
    grader: Grader = grade_marked_answer,
) -> list[Outcome]:
    """Answer `problems` greedily with the checkpoint at a path and grade them; outcomes in the problems' order."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, local_files_only=True, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    return evaluate(model, tokenizer, problems, max_new_tokens=max_new_tokens, batch_size=batch_size, grader=grader)


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int,
    batch_size: int = 512,
    grader: Grader = grade_marked_answer,
) -> list[Outcome]:
    """Answer `problems` greedily with a loaded model and grade them; outcomes in the problems' order."""
    prompts = encode_prompts(tokenizer, problems)
    completions = generate(
        model,
        prompts,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )
    texts = [text.strip() for text in tokenizer.batch_decode(completions, skip_special_tokens=True)]
    outcomes = []
    for problem, ids, text in zip(problems, completions, texts, strict=True):
        finished = bool(ids) and ids[-1] == tokenizer.eos_token_id
        correct = is_correct(text, problem.gold, finished=finished, grader=grader)
        outcomes.append(Outcome(problem, text, finished, correct))
    return outcomes


def encode_prompts(tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]) -> list[list[int]]:
    """Token ids of every prompt, through the chat template where the problem is a chat."""
    prompts: list[list[int]] = []
    for problem in problems:
        text = render([{"role": "user", "content": problem.prompt}], PromptStyle(bare=not problem.chat), tokenizer)
        prompts.append(list(tokenizer(text, add_special_tokens=not problem.chat)["input_ids"]))
    return prompts


@torch.inference_mode()  # type: ignore[untyped-decorator]
def generate(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    *,
    eos_token_id: int,
    pad_token_id: int,
    max_new_tokens: int,
    batch_size: int = 512,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """Completions of `prompts` as token ids, in their order, each ending with `eos_token_id` or at the limit.

    Temperature 0 takes the likeliest token; above it, tokens are drawn from `generator`. Prompts of about one length
    go together, since padding costs as much as text. The model's training mode is left as it was.
    """
    was_training = model.training
    model.eval()
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    completions: list[list[int]] = [[] for _ in prompts]
    try:
        for first in range(0, len(order), batch_size):
            indices = order[first : first + batch_size]
            rows = _generate_batch(
                model,
                [prompts[index] for index in indices],
                eos_token_id=eos_token_id,
                pad_token_id=pad_token_id,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                generator=generator,
            )
            for index, row in zip(indices, rows, strict=True):
                completions[index] = row
    finally:
        model.train(was_training)
    return completions


def _generate_batch(
    model: PreTrainedModel,
    prompts: list[list[int]],
    *,
    eos_token_id: int,
    pad_token_id: int,
    max_new_tokens: int,
    temperature: float,
    generator: torch.Generator | None,
) -> list[list[int]]:
    """One left-padded batch; a row that has ended leaves it, so that nothing is computed for it any more."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad_token_id] * (longest - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    position = mask.cumsum(-1).sub(1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    completions: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))
    for _ in range(max_new_tokens):
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        token = _choose(logits[:, -1].float(), temperature, generator)
        for row, chosen in zip(rows, token.tolist(), strict=True):
            completions[row].append(chosen)
        going = (token != eos_token_id).nonzero()[:, 0]
        if len(going) == 0:
            break
        if len(going) < len(rows):
            rows = [rows[index] for index in going.tolist()]
            cache.batch_select_indices(going)
            token, mask, position = token[going], mask[going], position[going]
        ids = token[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        position = position[:, -1:] + 1
    return completions


def _choose(logits: torch.Tensor, temperature: float, generator: torch.Generator | None) -> torch.Tensor:
    """One token a row, (rows,) int64, of logits (rows, vocabulary)."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    return torch.multinomial((logits / temperature).softmax(dim=-1), 1, generator=generator)[:, 0]
