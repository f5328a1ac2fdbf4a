"""One donor end to end: what is written, what is refused before the first step, what stops a run or makes it warn."""

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from reasonvec.errors import BenchmarkError, CheckpointError, OutputError, TrainingError, UsageError
from reasonvec.evaluation.benchmarks import load_benchmark
from reasonvec.evaluation.prompts import THINK, PromptStyle, build_messages, render
from reasonvec.interchange import import_lora
from reasonvec.training import directory, saving, trainers
from reasonvec.training import donor as donor_module
from reasonvec.training.directory import read_log, read_record
from reasonvec.training.donor import train_donor
from reasonvec.weights import apply
from reasonvec.weights.hub import locate_checkpoint
from tests.training.small import BARE, SFT, request, write_base

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def trained(base: Path, sums: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SFT donor that has learnt its sums, with its trajectory."""
    out = tmp_path_factory.mktemp("donor") / "sft"
    train_donor(request("sft", base, sums, out, "max_steps=12", trajectory="powers"))
    return out


def test_a_donor_is_an_ordinary_checkpoint_with_its_record(base: Path, sums: Path, trained: Path) -> None:
    assert AutoModelForCausalLM.from_pretrained(trained).dtype == torch.float32
    assert AutoTokenizer.from_pretrained(trained).get_vocab() == AutoTokenizer.from_pretrained(base).get_vocab()
    assert locate_checkpoint(trained).tensors.keys() == locate_checkpoint(base).tensors.keys()
    record = read_record(trained)
    assert record is not None
    assert record["steps"] == 12
    assert record["training_data"][0]["rows"] == 24
    assert record["validation"]["before"]["loss"] > record["validation"]["after"]["loss"]
    assert sorted(path.name for path in trained.iterdir()) == [
        "chat_template.jinja", "config.json", "generation_config.json", "log.jsonl", "model.safetensors", "plan.json",
        "tensorboard", "tokenizer.json", "tokenizer_config.json", "training.json", "trajectory",
    ]  # fmt: skip


def test_tensorboard_shows_the_losses_of_the_log(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tensorboard"))
    events.Reload()
    shown = {event.step: event.value for event in events.Scalars("train/loss")}
    logged = {row["step"]: row["loss"] for row in read_log(trained) if "loss" in row}
    assert shown == pytest.approx(logged)
    assert len(shown) == 12


def test_the_trajectory_holds_checkpoints_at_powers_of_two_that_lead_to_the_donor(trained: Path) -> None:
    steps = sorted(int(path.name.removeprefix("step-")) for path in (trained / "trajectory").iterdir())
    assert steps == [1, 2, 4, 8]
    final = load_file(trained / "model.safetensors")
    distances = []
    for step in steps:
        weights = load_file(trained / "trajectory" / f"step-{step}" / "model.safetensors")
        distances.append(sum(float((final[name] - weights[name]).square().sum()) for name in final))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] > 0


def test_the_held_out_loss_is_that_of_an_independent_count(base: Path, sums: Path, trained: Path) -> None:
    """Row by row, without padding: the mean over answers' tokens of -log p."""
    rows = [json.loads(line) for line in sums.read_text().splitlines()]
    record = read_record(trained)
    assert record is not None
    held_out = donor_module.load_training_data(
        str(sums), data_dir=sums.parent, seed=record["data"]["held_out"]["seed"], solutions=True
    ).held_out
    tokenizer, model = AutoTokenizer.from_pretrained(trained), AutoModelForCausalLM.from_pretrained(trained)
    losses: list[float] = []
    for row in rows:
        if row["question"] not in {problem.question for problem in held_out}:
            continue
        start = len(tokenizer(row["question"])["input_ids"])
        ids = torch.tensor([[*tokenizer(f"{row['question']} {row['answer']}")["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            losses += torch.nn.functional.cross_entropy(
                model(ids).logits[0, start - 1 : -1], ids[0, start:], reduction="none"
            ).tolist()
    assert record["validation"]["after"]["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_the_log_has_a_line_a_step(base: Path, sums: Path, tmp_path: Path) -> None:
    train_donor(request("grpo", base, sums, tmp_path / "grpo", "beta=0.1"))
    lines = read_log(tmp_path / "grpo")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        for name in ("loss", "reward", "kl", "entropy", "completion_length", "zero_advantage_share", "learning_rate"):
            assert isinstance(line[name], float), name
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-6)  # the reference is the model that training starts from
    assert lines[-1]["kl"] > 1e-6


@pytest.mark.parametrize("style", [PromptStyle(), PromptStyle(THINK), BARE])
@pytest.mark.parametrize("change", ["temperature=1.0", "top_k=50"], ids=["our sampler", "TRL's sampler"])
def test_grpo_samples_from_the_very_tokens_that_sft_and_evaluation_give(
    style: PromptStyle, change: str, base: Path, sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    original = trainers.GrpoTrainer.compute_loss

    def recording(self: Any, model: Any, inputs: Any, *arguments: Any, **others: Any) -> Any:
        rows = zip(inputs["prompt_ids"].tolist(), inputs["prompt_mask"].tolist(), strict=True)
        seen.extend([token for token, kept in zip(ids, mask, strict=True) if kept] for ids, mask in rows)
        return original(self, model, inputs, *arguments, **others)

    monkeypatch.setattr(trainers.GrpoTrainer, "compute_loss", recording)
    made = train_donor(
        replace(request("grpo", base, sums, tmp_path / "out", "max_steps=1", change, rewards=("format",)), style=style)
    )
    assert made.record["sampler"] == ("trl" if change == "top_k=50" else "reasonvec")
    problems = load_benchmark(str(sums), data=tmp_path).problems
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts = [render(build_messages(problem, style), style, tokenizer) for problem in problems]
    asked = {tuple(ids) for ids in tokenizer(texts, add_special_tokens=style.bare)["input_ids"]}
    assert len(seen) == 16
    assert {tuple(ids) for ids in seen} <= asked


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_donor_is_written_in_the_dtype_asked_for(base: Path, sums: Path, tmp_path: Path, dtype: str) -> None:
    full = train_donor(request("sft", base, sums, tmp_path / "full", "max_steps=2"))
    short = train_donor(request("sft", base, sums, tmp_path / "short", "max_steps=2", dtype=dtype))
    weights, rounded = (load_file(made.path / "model.safetensors") for made in (full, short))
    kind = {"bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
    assert {tensor.dtype for tensor in rounded.values()} == {kind}
    assert all(torch.equal(weights[name].to(kind), rounded[name]) for name in weights)
    assert json.loads((short.path / "config.json").read_text())["dtype"] == dtype
    moved = sum(float((weights[name].to(kind).double() - weights[name].double()).square().sum()) for name in weights)
    assert short.record["rounding_norm"] == pytest.approx(moved**0.5, rel=1e-6)
    assert full.record["rounding_norm"] == 0


def test_updates_that_pure_bfloat16_loses_are_counted_and_said(base: Path, sums: Path, tmp_path: Path) -> None:
    """An Adam step of 1e-6 is far below half a unit in the last place of nearly every weight of size 0.2."""
    said: list[str] = []
    made = train_donor(
        request("sft", base, sums, tmp_path / "sft", "learning_rate=1e-6", "model_init_kwargs.dtype=bfloat16",
                "max_steps=3", dtype="bfloat16"), warn=said.append,
    )  # fmt: skip
    before, after = (load_file(path / "model.safetensors") for path in (base, made.path))
    same = sum(int((before[name].to(torch.bfloat16) == after[name]).sum()) for name in before)
    unchanged = same / sum(tensor.numel() for tensor in before.values())
    assert made.record["rounded_away_share"] > 0.8
    assert made.record["rounded_away_share"] == pytest.approx(unchanged, abs=0.1)
    assert any("of the updates were rounded away" in text for text in said)
    assert read_log(made.path)[1]["rounded_away_share"] > 0.8


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_a_loss_that_is_no_number_stops_the_run_with_step_and_batch(
    kind: Any, base: Path, sums: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(TrainingError, match=r"at step [23], .*What is") as stopped:
        train_donor(request(kind, base, sums, out, "learning_rate=1e30", "save_steps=1", "warmup_steps=0",
                            "max_grad_norm=1.0"))  # fmt: skip
    batch = json.loads((out / "failed-batch.json").read_text())
    assert f"at step {batch['step']}," in str(stopped.value)
    assert len(batch["batch"]) == (8 if kind == "sft" else 16)
    assert not (out / "config.json").exists()


def test_a_gradient_that_is_no_number_does_not_reach_the_weights(
    base: Path, sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainers.trl.SFTTrainer, "_clip_grad_norm", lambda self, model: torch.tensor(float("nan")))
    with pytest.raises(TrainingError, match="gradient's norm became NaN or infinite at step 1"):
        train_donor(request("sft", base, sums, tmp_path / "out"))


def test_a_reward_that_is_constant_from_the_start_is_explained_once(base: Path, sums: Path, tmp_path: Path) -> None:
    said: list[str] = []
    train_donor(request("grpo", base, sums, tmp_path / "out", "max_steps=12", "learning_rate=0", rewards=("exact",)),
                warn=said.append)  # fmt: skip
    (text,) = [text for text in said if "The reward was 0" in text]
    assert "for every completion of the first 10 steps" in text
    assert "max_completion_length" in text  # an untrained model does not end within 6 tokens


def test_a_donor_that_did_not_improve_is_said(base: Path, sums: Path, tmp_path: Path) -> None:
    said: list[str] = []
    train_donor(request("grpo", base, sums, tmp_path / "out", "max_steps=1"), warn=said.append)
    assert any("GRPO did not improve the donor" in text for text in said)


def test_an_adapter_is_merged_and_kept(base: Path, sums: Path, tmp_path: Path) -> None:
    made = train_donor(request("sft", base, sums, tmp_path / "lora", "lora.r=2", "lora.lora_alpha=4",
                               "lora.target_modules=[q_proj, v_proj]", trajectory="4"))  # fmt: skip
    adapter = load_file(made.path / "adapter" / "adapter_model.safetensors")
    before, after = (load_file(path / "model.safetensors") for path in (base, made.path))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"model.layers.{n}.self_attn.{p}_proj.weight" for n in (0, 1) for p in "qv"}
    name = "model.layers.1.self_attn.v_proj"
    up, down = (adapter[f"base_model.model.{name}.lora_{side}.weight"].double() for side in "BA")
    expected = before[f"{name}.weight"].double() + 4 / 2 * up @ down
    torch.testing.assert_close(after[f"{name}.weight"].double(), expected, rtol=0, atol=1e-6)
    import_lora(str(made.path / "adapter"), base=str(base), out=tmp_path / "vector")
    apply(vectors=[(tmp_path / "vector", 1.0)], target=base, out=tmp_path / "sum")
    added = load_file(tmp_path / "sum" / "model.safetensors")
    torch.testing.assert_close(added[f"{name}.weight"], after[f"{name}.weight"], rtol=0, atol=1e-6)
    step = load_file(made.path / "trajectory" / "step-4" / "model.safetensors")
    assert step.keys() == after.keys()
    assert not torch.equal(step[f"{name}.weight"], after[f"{name}.weight"])


def test_a_full_disk_while_saving_leaves_the_earlier_states_whole(
    base: Path, sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    train_donor(request("sft", base, sums, whole))
    torch_save, count = torch.save, 0

    def full(*arguments: Any, **others: Any) -> None:
        nonlocal count
        count += 1
        if count > 4:  # the optimizer's, the scheduler's and the generators' states of step 2, then step 4's
            raise OSError(errno.ENOSPC, "No space left on device")
        torch_save(*arguments, **others)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(OutputError, match=r"step 4 could not be written .*go on from the last one with --resume"):
            train_donor(request("sft", base, sums, out))
    assert (out / "state" / "checkpoint-2" / "whole").exists()
    assert not (out / "state" / "checkpoint-4" / "whole").exists()
    train_donor(request("sft", base, sums, out, resume=True))
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_run_killed_while_its_donor_is_put_in_place_goes_on(
    base: Path, sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    asked = request("sft", base, sums, out, "lora.r=2", "lora.target_modules=[q_proj]")
    train_donor(replace(asked, out=whole))

    def killed(path: Path) -> None:
        if path.parent.name == ".donor" and path.name == "tokenizer.json":
            raise KeyboardInterrupt
        real_sync(path)

    real_sync = directory.sync
    with monkeypatch.context() as patched:
        patched.setattr(directory, "sync", killed)
        with pytest.raises(KeyboardInterrupt):
            train_donor(asked)
    assert (out / "model.safetensors").exists()
    assert not (out / "config.json").exists()
    train_donor(replace(asked, resume=True))
    for name in ("tensorboard", "training.json", "adapter"):
        assert (out / name).exists()
    ours, theirs = (
        sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.parent.name != "tensorboard")
        for place in (out, whole)
    )
    assert ours == theirs
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_full_disk_at_the_end_leaves_no_donor_that_looks_whole(
    base: Path, sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **others: Any) -> None:
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(saving, "save_checkpoint", full)
    out = tmp_path / "out"
    with pytest.raises(OutputError, match="step 6 could not be written"):
        train_donor(request("sft", base, sums, out))
    assert not (out / "config.json").exists()
    assert (out / "state" / "checkpoint-4" / "whole").exists()


def test_a_disk_that_is_too_small_is_found_before_the_first_step(
    base: Path, sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda where: shutil._ntuple_diskusage(10**6, 0, 10**6))
    with pytest.raises(OutputError, match=r"needs some 0\.0 GB .*Nothing was trained"):
        train_donor(request("sft", base, sums, tmp_path / "out", trajectory="1"))
    assert not (tmp_path / "out").exists()


def test_what_trl_refuses_is_said_in_its_words_and_leaves_nothing(base: Path, sums: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="TRL refuses this training: Target modules .*nowhere.* not found"):
        train_donor(request("sft", base, sums, tmp_path / "out", "lora.target_modules=[nowhere]"))
    with pytest.raises(UsageError, match="22 problems to train on, and a batch of completions takes 32"):
        train_donor(request("grpo", base, sums, tmp_path / "out", "per_device_train_batch_size=128"))
    assert not (tmp_path / "out").exists()


def _with_tokenizer(base: Path, out: Path, **changes: Any) -> Path:
    shutil.copytree(base, out)
    path = out / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return out


def test_a_tokenizer_without_pad_token_is_refused_until_one_is_named(base: Path, sums: Path, tmp_path: Path) -> None:
    bare = _with_tokenizer(base, tmp_path / "bare", pad_token=None)
    with pytest.raises(CheckpointError, match="has no pad token.*--pad-token"):
        train_donor(request("sft", bare, sums, tmp_path / "out"))
    with pytest.raises(UsageError, match="is no token of"):
        train_donor(request("sft", bare, sums, tmp_path / "out", pad_token="<nowhere>"))
    token = AutoTokenizer.from_pretrained(base).pad_token
    train_donor(request("sft", bare, sums, tmp_path / "out", "max_steps=1", pad_token=token))


def test_an_end_token_that_also_pads_is_learnt_all_the_same(base: Path, sums: Path, tmp_path: Path) -> None:
    end = AutoTokenizer.from_pretrained(base).eos_token
    one = _with_tokenizer(base, tmp_path / "one", pad_token=end)
    assert AutoTokenizer.from_pretrained(one).pad_token == end
    for kind in ("sft", "grpo"):
        for name, model in (("two", base), ("one", one)):
            train_donor(request(kind, model, sums, tmp_path / f"{kind}-{name}", "max_steps=2"))
        two, one_token = (load_file(tmp_path / f"{kind}-{name}" / "model.safetensors") for name in ("two", "one"))
        for name in two:
            if name != "model.embed_tokens.weight":  # row of the pad token
                torch.testing.assert_close(one_token[name], two[name], rtol=0, atol=1e-6)


def test_a_tokenizer_without_template_is_refused_unless_bare(base: Path, sums: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(base, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    asked = request("sft", bare, sums, tmp_path / "out", "max_steps=1")
    with pytest.raises(CheckpointError, match="has no chat template.*--bare"):
        train_donor(replace(asked, style=PromptStyle()))
    train_donor(asked)


def test_a_prompt_longer_than_the_context_is_refused(base: Path, sums: Path, tmp_path: Path) -> None:
    context = json.loads((base / "config.json").read_text())["max_position_embeddings"]
    with pytest.raises(BenchmarkError, match=rf"take up to \d+ tokens, and the context of .* is {context}"):
        train_donor(request("grpo", base, sums, tmp_path / "out", f"max_completion_length={context}"))
    with pytest.raises(BenchmarkError, match="max_length is 12"):
        train_donor(request("sft", base, sums, tmp_path / "out", "max_length=12"))
    assert not (tmp_path / "out").exists()


def test_outputs_are_not_mixed_up(base: Path, sums: Path, trained: Path, tmp_path: Path) -> None:
    asked = request("sft", base, sums, trained, "max_steps=12", trajectory="powers")
    with pytest.raises(OutputError, match="holds a finished donor"):
        train_donor(asked)
    assert train_donor(replace(asked, resume=True)).record == read_record(trained)
    with pytest.raises(OutputError, match=r"begun with other arguments: settings\.fields\.max_steps: 12 then, 13 now"):
        train_donor(replace(asked, resume=True, changes=(*SFT, "max_steps=13")))
    (tmp_path / "mine").mkdir()
    with pytest.raises(OutputError, match="is no training's"):
        train_donor(replace(asked, out=tmp_path / "mine", force=True))


def test_training_twice_gives_the_same_bytes(base: Path, sums: Path, tmp_path: Path) -> None:
    for name in ("once", "again"):
        train_donor(request("grpo", base, sums, tmp_path / name, "max_steps=2"))
    once, again = (tmp_path / name / "model.safetensors" for name in ("once", "again"))
    assert once.read_bytes() == again.read_bytes()
    assert write_base(tmp_path / "base").joinpath("model.safetensors").read_bytes() != once.read_bytes()
