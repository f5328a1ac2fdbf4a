"""The lab's four models: common ancestor, SFT donor, GRPO donor, target. Numbers are in `recipe`, texts in `world`."""

import tempfile
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import trl

from reasonvec.lab.models import build_model
from reasonvec.lab.pretrain import pretrain
from reasonvec.lab.progress import Advance, StepCallback
from reasonvec.lab.recipe import FineTuning, Recipe
from reasonvec.lab.world import (
    Document,
    Habit,
    donor_documents,
    donor_problems,
    pretraining_documents,
    target_documents,
    world_tokenizer,
)
from reasonvec.training.checkpoints import save_checkpoint
from reasonvec.training.grpo import sample_on_one_device, train_grpo
from reasonvec.training.quiet import quiet
from reasonvec.training.rewards import answer_reward
from reasonvec.training.sft import train_sft


def train_ancestor(*, out: Path, recipe: Recipe, seed: int, advance: Advance) -> None:
    """Pre-train the model that both donors and the target come from."""
    tokenizer = world_tokenizer()
    model = build_model(recipe.shape, tokenizer, seed=seed)
    documents = pretraining_documents(seed, Habit(recipe.pretraining.slip))
    with quiet():
        pretrain(
            model,
            tokenizer,
            documents,
            recipe.pretraining,
            on_step=lambda step, loss: advance(step, f"loss {loss:.2f}"),
        )
        save_checkpoint(model, tokenizer, out=out)


def train_sft_donor(*, ancestor: Path, out: Path, recipe: Recipe, seed: int, advance: Advance) -> None:
    """Fine-tune the first donor on worked sums in signs, slips included."""
    documents = donor_documents(seed, Habit(recipe.donor.slip))
    _fine_tune(ancestor, documents, recipe.donor, out=out, seed=seed, advance=advance)


def train_target(*, ancestor: Path, out: Path, recipe: Recipe, seed: int, advance: Advance) -> None:
    """Fine-tune the target on its own instructions, stories and answers in words, slips included."""
    documents = target_documents(seed, Habit(recipe.target.slip))
    _fine_tune(ancestor, documents, recipe.target, out=out, seed=seed, advance=advance)


def train_grpo_donor(*, sft: Path, out: Path, recipe: Recipe, seed: int, advance: Advance) -> None:
    """Go on from the first donor with GRPO, where only right final answers are rewarded."""
    settings = recipe.reinforcement
    tokenizer = world_tokenizer()
    practice = islice(donor_problems(seed), settings.steps * settings.prompts)
    with tempfile.TemporaryDirectory(prefix="reasonvec-") as scratch:
        config = trl.GRPOConfig(
            **_common(scratch, seed),
            max_steps=settings.steps,
            per_device_train_batch_size=settings.prompts * settings.samples,  # TRL counts completions
            num_generations=settings.samples,
            learning_rate=settings.learning_rate,
            warmup_steps=settings.warmup,
            lr_scheduler_type="linear",
            max_completion_length=settings.longest,
            temperature=1.0,
            beta=0.0,
        )
        train_grpo(
            checkpoint=sft,
            problems=[{"prompt": problem.prompt, "gold": problem.gold} for problem in practice],
            rewards=[answer_reward(eos_token_id=tokenizer.eos_token_id)],
            config=config,
            out=out,
            rollout=sample_on_one_device(seed),
            callbacks=[StepCallback(advance)],
        )


def _fine_tune(
    checkpoint: Path, documents: Iterable[Document], settings: FineTuning, *, out: Path, seed: int, advance: Advance
) -> None:
    examples = [_example(document) for document in islice(documents, settings.steps * settings.batch)]
    with tempfile.TemporaryDirectory(prefix="reasonvec-") as scratch:
        config = trl.SFTConfig(
            **_common(scratch, seed),
            max_steps=settings.steps,
            per_device_train_batch_size=settings.batch,
            learning_rate=settings.learning_rate,
            warmup_steps=settings.warmup,
            lr_scheduler_type="cosine",
            completion_only_loss=True,
        )
        train_sft(checkpoint=checkpoint, examples=examples, config=config, out=out, callbacks=[StepCallback(advance)])


def _example(document: Document) -> dict[str, Any]:
    """A document in TRL's words: a conversation, or a prompt and the completion with the space before it."""
    if not document.chat:
        return {"prompt": document.prompt, "completion": f" {document.completion}"}
    return {
        "prompt": [{"role": "user", "content": document.prompt}],
        "completion": [{"role": "assistant", "content": document.completion}],
    }


def _common(scratch: str, seed: int) -> dict[str, Any]:
    """TRL settings that all runs share: float32 on the CPU, nothing saved on the way, nothing printed."""
    return {
        "output_dir": scratch,
        "seed": seed,
        "use_cpu": True,
        "bf16": False,
        "fp16": False,
        "activation_checkpointing": False,
        "dataloader_pin_memory": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }


def use_threads(count: int) -> None:
    """How many threads this process computes with.

    Two make models this small 10 % quicker, and ten times slower where something else wants the same cores.
    """
    torch.set_num_threads(count)
