"""Reinforcement learning of a checkpoint with TRL's GRPOTrainer. A thin function: TRL's own config, TRL's own loss."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback

from reasonvec.evaluation.generation import generate
from reasonvec.training.checkpoints import load_checkpoint, refuse_existing, save_checkpoint
from reasonvec.training.quiet import quiet
from reasonvec.training.rewards import RewardFunction

Rollout = Callable[[list[Any], trl.GRPOTrainer], dict[str, Any]]
"""TRL's `rollout_func`: prompts, each repeated for every sample, and the trainer; ids of prompts and completions."""


def train_grpo(
    *,
    checkpoint: Path,
    problems: Iterable[dict[str, Any]],
    rewards: Sequence[RewardFunction],
    config: trl.GRPOConfig,
    out: Path,
    rollout: Rollout | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    """Train the checkpoint to earn `rewards` on `problems` and write an ordinary checkpoint to `out`.

    Problems have a `prompt`, as text or as messages, and the columns that the rewards read, such as `gold`. `out`
    must not exist. `config` is used as it is, `output_dir` included, where TRL may save intermediate states.
    `rollout` replaces TRL's own sampling, see `sample_on_one_device`.

    GRPO: Shao et al. 2024, arXiv:2402.03300.
    """
    refuse_existing(out)
    with quiet():
        model, tokenizer = load_checkpoint(checkpoint)
        trainer = trl.GRPOTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(list(problems)),
            processing_class=tokenizer,
            reward_funcs=list(rewards),
            rollout_func=rollout,
            callbacks=list(callbacks),
        )
        trainer.remove_callback(PrinterCallback)  # it prints to stdout
        trainer.train()
        save_checkpoint(trainer.model, tokenizer, out=out)


def sample_on_one_device(seed: int | None) -> Rollout:
    """A rollout that samples with evaluation's own loop: several times quicker than TRL's for small models.

    It honours the config's `temperature` and `max_completion_length`, and no other sampling setting. It is meant for
    a model that is whole on one device; with vLLM, FSDP or DeepSpeed leave TRL's own in place. Without `seed` it draws
    from torch's own generator, whose state TRL's checkpoints keep.
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)

    def rollout(prompts: list[Any], trainer: trl.GRPOTrainer) -> dict[str, Any]:
        tokenizer = trainer.processing_class
        prompt_ids = [_encode(tokenizer, prompt) for prompt in prompts]
        completion_ids = generate(
            trainer.accelerator.unwrap_model(trainer.model),
            prompt_ids,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            max_new_tokens=trainer.args.max_completion_length,
            temperature=trainer.args.temperature,
            generator=generator,
        )
        # TRL reads log-probabilities of the sampler only to correct for another engine's; this is the same model
        return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": None}

    return rollout


def _encode(tokenizer: Any, prompt: Any) -> list[int]:
    """Token ids of a text or of messages, whose template writes the tokens that begin a text itself."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
