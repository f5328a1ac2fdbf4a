"""One donor, from a checkpoint and a file of problems to a checkpoint: what `train sft` and `train grpo` do.

TRL trains. Here the run is planned, checked before the first step, logged, kept on disk so that it can go on after a
kill, validated and written down.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import peft
import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from transformers.integrations import TensorBoardCallback

from reasonvec.errors import UsageError
from reasonvec.evaluation.prompts import PromptStyle
from reasonvec.training.callbacks import (
    ConstantRewardCallback,
    LogCallback,
    ProgressCallback,
    RoundingCallback,
    SaveCallback,
    TrajectoryCallback,
    parse_rule,
)
from reasonvec.training.checkpoints import load_checkpoint
from reasonvec.training.config import build_config, master_dtype, own_sampler_serves, save_steps, torch_dtype
from reasonvec.training.data import (
    Example,
    check_lengths,
    encode,
    load_training_data,
    overlap_with_benchmarks,
    prompt_of,
)
from reasonvec.training.directory import RunDirectory, read_record, step_of
from reasonvec.training.grpo import sample_on_one_device
from reasonvec.training.preparation import check_disk, check_tokens
from reasonvec.training.quiet import quiet
from reasonvec.training.rewards import RewardFunction, Task, find_rewards
from reasonvec.training.saving import save_weights
from reasonvec.training.settings import Kind, read_settings
from reasonvec.training.trainers import GrpoTrainer, SftTrainer
from reasonvec.training.validation import Validation, validate
from reasonvec.weights.hub import locate_checkpoint
from reasonvec.weights.provenance import absolute, input_identity, tool

FORMAT, FORMAT_VERSION = "reasonvec training", 1
ROUNDED_AWAY = 0.05
"""Share of updates lost to rounding above which a donor's record warns."""
Dtype = Literal["float32", "bfloat16", "float16"]
Progress = Callable[[int, int, str], None]
"""Called with the steps done, those there are, and a word on how it goes."""


@dataclass(frozen=True)
class Request:
    """What one training is asked to do, as the command line has it."""

    kind: Kind
    model: str
    """Checkpoint to start from: a directory or `owner/name[@revision]` on the Hub."""
    data: str
    out: Path
    data_dir: Path = Path("data")
    rewards: tuple[str, ...] = ()
    config: str | None = None
    changes: tuple[str, ...] = ()
    """`field=value`, over the config."""
    style: PromptStyle = field(default_factory=PromptStyle)
    held_out: int | None = None
    benchmarks: tuple[str, ...] = ()
    allow_overlap: bool = False
    dtype: Dtype = "float32"
    """In which the donor is written."""
    trajectory: str = "none"
    pad_token: str | None = None
    offline: bool = False
    resume: bool = False
    force: bool = False


@dataclass(frozen=True)
class Donor:
    """A donor that was trained."""

    path: Path
    record: Mapping[str, Any]
    """training.json."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was noticed on the way."""
        return tuple(self.record["warnings"])

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {"path": str(self.path), **self.record}


def train_donor(request: Request, *, warn: Callable[[str], None] = lambda text: None,
                progress: Progress = lambda done, steps, note: None) -> Donor:  # fmt: skip
    """Train one donor and write it, with its log and its record, to `request.out`.

    Raises UsageError for settings that cannot be used, BenchmarkError for data that cannot be trained on,
    CheckpointError for a model without what training needs, OutputError for an output that exists or a full disk,
    TrainingError for a loss that is no number. All that can be is found before the first step.
    """
    with quiet():
        run = _Run(request, warn, progress)
        try:
            return run.train()
        finally:
            run.directory.release()


class _Run:
    """One training, from the request to the record. Of several processes each has one; the main one writes."""

    def __init__(self, request: Request, warn: Callable[[str], None], progress: Progress) -> None:
        self.request, self._say, self._progress, self._began = request, warn, progress, time.time()
        self.warnings: list[str] = []
        self.directory = RunDirectory(request.out)
        self.rule = parse_rule(request.trajectory)
        self.settings = read_settings(request.kind, config=request.config, changes=request.changes)
        self.config = build_config(self.settings, self.directory)
        self.master, self.every = master_dtype(self.settings), save_steps(self.settings)
        self.main = self.config.process_index == 0
        self.data = load_training_data(
            request.data, data_dir=request.data_dir, held_out=request.held_out, seed=self.config.seed,
            solutions=request.kind == "sft",
        )  # fmt: skip
        self.source = locate_checkpoint(request.model, offline=request.offline)
        attention = (self.settings.fields.get("model_init_kwargs") or {}).get("attn_implementation")
        self.model, self.tokenizer = load_checkpoint(self.source.path, dtype=self.master, attention=attention)
        check_tokens(self.tokenizer, self.source.location, pad_token=request.pad_token)
        self.training = encode(self.data.training, request.style, self.tokenizer)
        self.held_out = encode(self.data.held_out, request.style, self.tokenizer)
        self.own_sampler = request.kind == "grpo" and own_sampler_serves(self.config, self.model, self.tokenizer)
        self.context = int(getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30)
        self.rounding: RoundingCallback | None = None

    def train(self) -> Donor:
        """All of it, in order."""
        self._check_lengths()
        rewards = self._rewards() if self.request.kind == "grpo" else []
        overlap = self._overlap() if self.main else {}
        if self.main:
            if not self.request.resume:
                self._check_disk()
            self.directory.begin(self._plan(), resume=self.request.resume, force=self.request.force)
        self.config.distributed_state.wait_for_everyone()
        if (finished := self.directory.record()) is not None:
            return Donor(self.request.out, finished)  # --resume of a run that was done
        try:
            trainer = self._trainer(rewards)
        except (ValueError, TypeError, ImportError) as error:
            self.directory.abandon()
            raise UsageError(f"TRL refuses this training: {' '.join(str(error).split())}") from error
        before = self._validate(trainer)
        state = self.directory.last_state()
        trainer.train(resume_from_checkpoint=str(state) if state else None)
        after = self._validate(trainer)
        donor = self.directory.root / ".donor"
        moved = self._save(trainer, donor, trainer.state.global_step)
        self._judge(before, after)
        record = self._record(trainer, overlap, before, after) | {"rounding_norm": moved}
        if self.main:
            self.directory.finish(donor, record)
        self.config.distributed_state.wait_for_everyone()
        return Donor(self.request.out, record)

    def warn(self, text: str) -> None:
        """Keep a warning for the record, and say it at once."""
        if self.main:
            self.warnings.append(text)
            self._say(text)

    def _check_lengths(self) -> None:
        where = f"the context of {self.source.location}"
        examples = [*self.training, *self.held_out]
        if self.request.kind == "grpo":
            different = self.config.generation_batch_size // self.config.num_generations
            if len(self.training) < different:
                raise UsageError(
                    f"{self.request.data} leaves {len(self.training)} problems to train on, and a batch of completions "
                    f"takes {different} different ones, so there would be no step. Give more data, or a smaller "
                    f"per_device_train_batch_size."
                )
            check_lengths(examples, answer_tokens=self.config.max_completion_length, limit=self.context, what=where)
            return
        check_lengths(examples, answer_tokens=None, limit=self.context, what=where)
        if self.config.max_length is not None:
            check_lengths(examples, answer_tokens=None, limit=self.config.max_length, what="max_length")

    def _rewards(self) -> list[RewardFunction]:
        problems = {problem.id: problem for problem in self.data.training}
        declared = self.model.generation_config.eos_token_id
        ends = declared if isinstance(declared, list) else [] if declared is None else [declared]
        task = Task(problems, frozenset([self.tokenizer.eos_token_id, *ends]), self.config.max_completion_length)
        return find_rewards(self.request.rewards, task)

    def _overlap(self) -> dict[str, Any]:
        counts, warnings = overlap_with_benchmarks(
            self.data, benchmarks=self.request.benchmarks, data_dir=self.request.data_dir,
            allowed=self.request.allow_overlap,
        )  # fmt: skip
        for warning in warnings:
            self.warn(warning)
        return counts

    def _plan(self) -> dict[str, Any]:
        """What a resumed run has to share with the one that was interrupted."""
        request = self.request
        sizes = {Path(path).name: size for path, (size, _) in input_identity([self.source]).items()}
        return {
            "kind": request.kind, "data": self.data.to_json(), "settings": self.settings.to_json(),
            "model": {"location": absolute(self.source.location), "revision": self.source.revision, "files": sizes},
            "prompt": request.style.to_json(), "rewards": list(request.rewards), "dtype": request.dtype,
            "trajectory": request.trajectory, "pad_token": request.pad_token, "processes": self.config.world_size,
        }  # fmt: skip

    def _check_disk(self) -> None:
        weights = sum(parameter.numel() for parameter in self.model.parameters())
        # weights and Adam's two moments, for two states and one that is being written; an adapter's are small
        states = 0 if self.settings.lora else 3 * 3 * weights * self.master.itemsize
        kept = self.rule.count(max(self.config.max_steps, 1))
        check_disk(self.request.out, kept=kept,
                   needed=states + (kept + 1) * weights * torch_dtype(self.request.dtype).itemsize)  # fmt: skip

    def _trainer(self, rewards: Sequence[RewardFunction]) -> Any:
        log = LogCallback(self.directory, self.request.kind)
        callbacks: list[TrainerCallback] = [ProgressCallback(self._progress)]
        if self.master != torch.float32:
            self.rounding = RoundingCallback(lambda share: log.extra.update(rounded_away_share=share))
            callbacks.append(self.rounding)
        lora = self.settings.lora
        common: dict[str, Any] = {
            "model": self.model, "args": self.config, "processing_class": self.tokenizer,
            "peft_config": None if lora is None else peft.LoraConfig(task_type="CAUSAL_LM", **lora),
        }  # fmt: skip
        block = 1
        if self.request.kind == "sft":
            rows = [_row(example) for example in self.training]
            trainer = SftTrainer(train_dataset=Dataset.from_list(rows), callbacks=[*callbacks, log], **common)
        else:
            batch = self.config.num_iterations * self.config.steps_per_generation
            block = max(1, batch // self.config.gradient_accumulation_steps)
            trainer = GrpoTrainer(
                train_dataset=Dataset.from_list([self._problem_row(example) for example in self.training]),
                reward_funcs=list(rewards),
                rollout_func=sample_on_one_device(None) if self.own_sampler else None,
                callbacks=[*callbacks, ConstantRewardCallback(self.warn), log],
                **common,
            )
        trainer.add_callback(SaveCallback(self.every, block))
        trainer.add_callback(TrajectoryCallback(
            self.rule, lambda step: self._save(trainer, self.directory.trajectory / f"step-{step}", step)
        ))  # fmt: skip
        if find_spec("tensorboard") and self.main:
            from torch.utils.tensorboard import SummaryWriter

            last = self.directory.last_state()
            writer = SummaryWriter(str(self.directory.tensorboard), purge_step=step_of(last) + 1 if last else None)
            trainer.add_callback(TensorBoardCallback(writer))
        trainer.remove_callback(PrinterCallback)  # it prints to stdout
        return trainer

    def _problem_row(self, example: Example) -> dict[str, Any]:
        problem = example.problem
        return {"prompt": prompt_of(problem, self.request.style), "id": problem.id, "question": problem.question,
                "gold": problem.gold, "solution": problem.solution or ""}  # fmt: skip

    def _validate(self, trainer: Any) -> Validation | None:
        """None where nothing is held out, or the model is spread over several devices."""
        if not self.held_out or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            return None
        found = None
        if self.main:
            longest = max(len(example.answer_ids) for example in self.training)
            wanted = self.config.max_completion_length if self.request.kind == "grpo" else 2 * longest
            room = min(wanted, self.context - max(len(example.prompt_ids) for example in self.held_out))
            model = trainer.accelerator.unwrap_model(trainer.model)
            found = validate(model, self.tokenizer, self.held_out, max_new_tokens=room,
                             loss=self.request.kind == "sft")  # fmt: skip
        self.config.distributed_state.wait_for_everyone()
        return found

    def _save(self, trainer: Any, out: Path, step: int) -> float:
        return save_weights(trainer, self.tokenizer, out=out, dtype=torch_dtype(self.request.dtype), step=step,
                     base=self.source.path if self.settings.lora else None)  # fmt: skip

    def _judge(self, before: Validation | None, after: Validation | None) -> None:
        """Warn of a donor that did not learn, and of updates that were lost."""
        if before and after and self.request.kind == "grpo" and after.accuracy <= before.accuracy:
            self.warn(
                f"GRPO did not improve the donor: {before.accuracy:.1%} of {before.problems} held-out problems right "
                f"before, {after.accuracy:.1%} after. A vector of it carries nothing worth moving; see docs/donors.md."
            )
        if self.rounding and (self.rounding.share or 0) > ROUNDED_AWAY:
            self.warn(
                f"{self.rounding.share:.0%} of the updates were rounded away, because the weights are kept in "
                f"{str(self.master).removeprefix('torch.')}. Leave model_init_kwargs.dtype out: float32 is the default."
            )

    def _record(self, trainer: Any, overlap: Mapping[str, Any], before: Validation | None, after: Validation | None
                ) -> dict[str, Any]:  # fmt: skip
        parent = read_record(self.source.path)
        inherited = (parent or {}).get("training_data")
        return {
            "format": FORMAT, "format_version": FORMAT_VERSION, "tool": tool(), **self._plan(),
            "parent": None if parent is None else {name: parent.get(name) for name in ("kind", "model", "data")},
            "training_data": [
                {**self.data.to_json(), "path": str(self.data.path.absolute()), "overlap": dict(overlap)},
                *(inherited if isinstance(inherited, list) else []),
            ],
            "steps": trainer.state.global_step, "epochs": trainer.state.epoch,
            "master_dtype": str(self.master).removeprefix("torch."),
            "sampler": None if self.request.kind == "sft" else "reasonvec" if self.own_sampler else "trl",
            "validation": {"before": before and before.to_json(), "after": after and after.to_json()},
            "rounded_away_share": self.rounding.share if self.rounding else None,
            "seconds": round(time.time() - self._began, 1),
            "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft", "accelerate")},
            "warnings": self.warnings,
        }  # fmt: skip


def _row(example: Example) -> dict[str, list[int]]:
    """As TRL takes what is tokenized: no loss on the prompt."""
    return {"input_ids": example.prompt_ids + example.answer_ids,
            "labels": [-100] * len(example.prompt_ids) + example.answer_ids}  # fmt: skip
