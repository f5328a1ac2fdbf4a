"""TRL's two trainers with what a donor needs besides: a loss that is no number stops the run, a checkpoint says when it
is whole, and the order of problems is a function of seed and epoch alone, so that a resumed run sees the same.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import trl
from trl.trainer.utils import RepeatSampler

from reasonvec.errors import OutputError, TrainingError
from reasonvec.training.directory import mark_whole

_SHOWN = 3
FAILED_BATCH = "failed-batch.json"


class _Guarded:
    """What both have in common; it stands before TRL's trainer in the order of classes."""

    state: Any
    args: Any
    model: Any
    accelerator: Any
    processing_class: Any

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Raise TrainingError for a loss that is NaN or infinite, before it reaches the weights."""
        try:
            loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc]
        except RuntimeError as error:
            if "nan" not in str(error).lower():
                raise
            # sampling fails before there is a loss: torch refuses probabilities that are no numbers
            raise self._not_finite("probabilities", inputs) from error
        if not bool(torch.isfinite(loss).all()):
            raise self._not_finite("loss", inputs)
        self._last_inputs = inputs
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)  # type: ignore[misc]
        # with fp16 the loss is scaled, and steps whose gradients overflow are skipped as a matter of course
        if norm is not None and not self.args.fp16 and not math.isfinite(float(norm)):
            raise self._not_finite("gradient's norm", self._last_inputs)
        return norm

    def _not_finite(self, what: str, inputs: Any) -> TrainingError:
        step, rows = self.state.global_step + 1, _rows(inputs, self.processing_class)
        file = Path(self.args.output_dir).parent / FAILED_BATCH
        if self.accelerator.is_main_process:
            file.write_text(json.dumps({"step": step, "not_finite": what, "batch": rows}, indent=1), encoding="utf-8")
        shown = "; ".join(json.dumps(row)[:120] for row in rows[:_SHOWN])
        return TrainingError(
            f"The {what} became NaN or infinite at step {step}, so the run was stopped before it reached a checkpoint. "
            f"The batch began with {shown}; all of it is in {file}. Usual causes: a learning rate that is too high "
            f"(here {self.args.learning_rate:g}), max_grad_norm 0, fp16 where bf16 is at hand. Change it and start "
            f"anew with --force."
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """TRL's checkpoint, and a mark in it once every process has written its part."""
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                mark_whole(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")
        except Exception as error:
            raise_if_full(error, Path(self.args.output_dir), self.state.global_step)
            raise
        self.accelerator.wait_for_everyone()


def raise_if_full(error: Exception, where: Path, step: int) -> None:
    """Raise OutputError where saving failed for want of space, for which torch and safetensors have own errors."""
    words = ("no space left", "disk quota", "file write failed", "enforce fail at inline_container", "file too large")
    if any(word in str(error).lower() for word in words):
        raise OutputError(
            f"The checkpoint of step {step} could not be written to {where}: {str(error)[:200]}. The earlier "
            f"checkpoints are whole. Free some space and go on from the last one with --resume, or keep fewer with "
            f"--trajectory."
        ) from error


class SftTrainer(_Guarded, trl.SFTTrainer):  # type: ignore[misc]
    """TRL's SFTTrainer."""


class GrpoTrainer(_Guarded, trl.GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPOTrainer, whose sampler would begin its shuffles anew in a resumed run."""

    def _get_train_sampler(self, dataset: Any = None) -> "EpochSampler":
        return EpochSampler(
            data_source=self.train_dataset if dataset is None else dataset,
            mini_repeat_count=self.num_generations,
            batch_size=self.args.generation_batch_size // self.num_generations,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            shuffle=self.shuffle_dataset,
            seed=self.args.seed,
        )


class EpochSampler(RepeatSampler):  # type: ignore[misc]
    """TRL's sampler with an order that depends on seed and epoch, not on how many epochs this process has seen."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch, through accelerate."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if self.shuffle:
            self.generator.manual_seed((self.seed << 16) + self.epoch)
        yield from super().__iter__()


def _rows(inputs: Any, tokenizer: Any) -> list[Any]:
    """A batch in words: GRPO's rows as they are, SFT's decoded."""
    if isinstance(inputs, dict):
        return [tokenizer.decode(row, skip_special_tokens=True) for row in inputs["input_ids"].tolist()]
    return [{name: row.get(name) for name in ("id", "prompt")} for row in inputs]
