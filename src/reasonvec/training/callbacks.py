"""What happens at the steps of a training: a line in the log, a checkpoint now and then, a warning, a measurement."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback

from reasonvec.errors import UsageError
from reasonvec.training.directory import RunDirectory

Warn = Callable[[str], None]

RENAMED = {
    "completions/mean_length": "completion_length",
    "completions/clipped_ratio": "cut_off_share",
    "frac_reward_zero_std": "zero_advantage_share",
    "eval_loss": "validation_loss",
}
"""TRL's names of what the log is read for, and ours; all else keeps its name."""
LOGGED = {
    "sft": ("loss",),
    "grpo": ("loss", "reward", "kl", "entropy", "completion_length", "zero_advantage_share"),
}
"""What every line has, null where TRL does not measure it: the KL term where beta is 0."""
CONSTANT_STEPS = 10
"""So many steps without any difference within a group of rewards, from the first on, make a warning."""
SAMPLED = 1 << 14
"""Entries of each tensor that are watched for updates that are rounded away."""


@dataclass(frozen=True)
class Rule:
    """At which steps a checkpoint is kept for good."""

    every: int | None = None
    powers: bool = False

    def holds(self, step: int) -> bool:
        """Whether `step`, counted from 1, is kept."""
        if self.powers:
            return step & (step - 1) == 0
        return self.every is not None and step % self.every == 0

    def count(self, steps: int) -> int:
        """How many are kept of so many steps."""
        return sum(self.holds(step) for step in range(1, steps))


def parse_rule(text: str) -> Rule:
    """`powers`, for steps 1, 2, 4, 8 and so on; a number, for every so many steps; or `none`."""
    if text == "powers":
        return Rule(powers=True)
    if text == "none":
        return Rule()
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--trajectory takes powers, none or a number of steps, not {text!r}.")
    return Rule(every=int(text))


class LogCallback(TrainerCallback):  # type: ignore[misc]
    """Writes what TRL logs to log.jsonl."""

    def __init__(self, directory: RunDirectory, kind: str) -> None:
        self.directory, self.kind = directory, kind
        self.extra: dict[str, Any] = {}
        """Measured by other callbacks since the last line."""
        self._began = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **others: Any) -> None:
        """Called by the trainer on every process."""
        if not state.is_world_process_zero or "loss" not in logs:
            return  # the summary at the end, and validation, are in training.json
        line = {"step": state.global_step, **dict.fromkeys(LOGGED[self.kind])}
        line |= {RENAMED.get(name, name): value for name, value in logs.items()}
        line |= self.extra | {"seconds": round(time.monotonic() - self._began, 3)}
        self.extra = {}
        self.directory.log(line)


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Tells whoever watches how far the run is, and what the last logged step was like."""

    def __init__(self, progress: Callable[[int, int, str], None]) -> None:
        self._progress, self._note = progress, ""

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **others: Any) -> None:
        """Called by the trainer."""
        shown = [f"{name} {logs[name]:.3f}" for name in ("loss", "reward") if isinstance(logs.get(name), float)]
        self._note = ", ".join(shown) or self._note

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Called by the trainer after each optimizer step."""
        if state.is_world_process_zero:
            self._progress(state.global_step, state.max_steps, self._note)


class SaveCallback(TrainerCallback):  # type: ignore[misc]
    """Asks for a checkpoint to resume from every `every` steps, between two batches of completions."""

    def __init__(self, every: int, block: int) -> None:
        self.every, self.block = every, block
        """`block`: steps that share one batch of completions. Between them TRL could not go on as it was."""
        self._saved = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Called by the trainer after each optimizer step."""
        step = state.global_step
        due = step // self.every > self._saved // self.every
        if due and step % self.block == 0 and step < state.max_steps:
            control.should_save, self._saved = True, step

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Called by the trainer, in a resumed run with the step that it goes on from."""
        self._saved = state.global_step


class TrajectoryCallback(TrainerCallback):  # type: ignore[misc]
    """Keeps checkpoints along the way by a rule; the last step is the donor itself."""

    def __init__(self, rule: Rule, save: Callable[[int], object]) -> None:
        self.rule, self.save = rule, save

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Called by the trainer after each optimizer step, on every process: gathering weights takes all of them."""
        if self.rule.holds(state.global_step) and state.global_step < state.max_steps:
            self.save(state.global_step)


class ConstantRewardCallback(TrainerCallback):  # type: ignore[misc]
    """Warns, once, where no group of completions has had two different rewards since the first step."""

    def __init__(self, warn: Warn) -> None:
        self._warn, self._over = warn, False

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Called by the trainer; a run that goes on has had its first steps."""
        self._over = state.global_step > 0

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **others: Any) -> None:
        """Called by the trainer."""
        if self._over or "frac_reward_zero_std" not in logs:
            return
        if logs["frac_reward_zero_std"] is None or logs["frac_reward_zero_std"] < 1:
            self._over = True
            return
        if state.global_step >= min(CONSTANT_STEPS, state.max_steps):
            self._over = True
            if state.is_world_process_zero:
                self._warn(_constant(state.global_step, logs))


def _constant(steps: int, logs: Mapping[str, Any]) -> str:
    reward, cut_off = float(logs.get("reward") or 0.0), float(logs.get("completions/clipped_ratio") or 0.0)
    if reward > 0:
        why = "Every completion earns it, so there is nothing to learn: take harder data or another --reward."
    elif cut_off > 0.5:
        why = (f"{cut_off:.0%} of the completions are cut off before they end: raise max_completion_length, or "
               f"fine-tune first, so that answers end.")  # fmt: skip
    else:
        why = ("No completion earns it: the model never comes upon a right answer in the form that is asked for. "
               "Fine-tune it first (`train sft`), take easier data, or more completions a problem "
               "(num_generations).")  # fmt: skip
    return (f"The reward was {reward:g} for every completion of the first {steps} steps. With equal rewards in a group "
            f"all advantages are zero and nothing is learnt. {why}")  # fmt: skip


class RoundingCallback(TrainerCallback):  # type: ignore[misc]
    """Counts, for weights that are kept in 16 bits, the updates that rounding undid, in a sample of entries."""

    def __init__(self, on_share: Callable[[float], None]) -> None:
        self._on_share = on_share
        self._asked = self._lost = 0
        self._before: dict[str, torch.Tensor] = {}

    @property
    def share(self) -> float | None:
        """Of all steps so far; None where no update was asked for."""
        return self._lost / self._asked if self._asked else None

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **others: Any
    ) -> None:
        """Called by the trainer with gradients in place."""
        if not any(group["lr"] for group in optimizer.param_groups):
            return  # the first step of a warm-up asks for nothing
        self._before = {name: _sample(p).clone() for name, p in model.named_parameters() if p.grad is not None}

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        """Called by the trainer after the step, before gradients are dropped."""
        asked = lost = 0
        for name, parameter in model.named_parameters():
            if name in self._before:
                moved = _sample(parameter) != self._before[name]
                # Adam moves an entry by about the learning rate whatever the size of its gradient, if that is not zero
                wanted = _sample(parameter.grad) != 0
                asked += int(wanted.sum())
                lost += int((wanted & ~moved).sum())
        self._asked, self._lost, self._before = self._asked + asked, self._lost + lost, {}
        if asked:
            self._on_share(lost / asked)


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor  # this process's part of a sharded one
    flat = local.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLED)]
