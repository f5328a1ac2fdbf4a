"""Supervised fine-tuning of a checkpoint with TRL's SFTTrainer. A thin function: TRL's own config, TRL's own loop."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import trl
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback

from reasonvec.training.checkpoints import load_checkpoint, refuse_existing, save_checkpoint
from reasonvec.training.quiet import quiet


def train_sft(
    *,
    checkpoint: Path,
    examples: Iterable[dict[str, Any]],
    config: trl.SFTConfig,
    out: Path,
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    """Fine-tune the checkpoint on `examples` and write an ordinary checkpoint to `out`, which must not exist.

    Examples are TRL's: `prompt` and `completion`, as text or as messages, or `text` or `messages` alone. `config` is
    used as it is, `output_dir` included, where TRL may save intermediate states.
    """
    refuse_existing(out)
    with quiet():
        model, tokenizer = load_checkpoint(checkpoint)
        trainer = trl.SFTTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(list(examples)),
            processing_class=tokenizer,
            callbacks=list(callbacks),
        )
        trainer.remove_callback(PrinterCallback)  # it prints to stdout
        trainer.train()
        save_checkpoint(trainer.model, tokenizer, out=out)
