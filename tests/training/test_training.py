"""SFT and GRPO through TRL: an ordinary checkpoint comes out, it has learned, and nothing else is left behind."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import trl
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM

from reasonvec.errors import CheckpointError, OutputError
from reasonvec.training.checkpoints import load_checkpoint, save_checkpoint
from reasonvec.training.grpo import sample_on_one_device, train_grpo
from reasonvec.training.rewards import answer_reward
from reasonvec.training.sft import train_sft
from tests.lab.tiny import tiny_checkpoint

pytestmark = pytest.mark.lab

LESSON = {"prompt": "Question: What is 3 + 4?\nAnswer:", "completion": " 3 + 4 = 7 # 7"}
CHAT = {
    "prompt": [{"role": "user", "content": "Start with 3, add 4."}],
    "completion": [{"role": "assistant", "content": "3 plus 4 is 7 so 7"}],
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


def _settings(scratch: Path, **others: Any) -> dict[str, Any]:
    return {
        "output_dir": str(scratch), "use_cpu": True, "bf16": False, "fp16": False, "activation_checkpointing": False,
        "dataloader_pin_memory": False, "report_to": "none", "save_strategy": "no", "logging_strategy": "no",
        "disable_tqdm": True, "seed": 0, **others,
    }  # fmt: skip


def _loss(checkpoint: Path, example: dict[str, Any]) -> float:
    """Mean negative log-likelihood of an example's completion and end token, worked out without TRL."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    if isinstance(example["prompt"], str):
        prompt = example["prompt"]
        whole = prompt + example["completion"] + tokenizer.eos_token
    else:
        prompt = tokenizer.apply_chat_template(example["prompt"], add_generation_prompt=True, tokenize=False)
        whole = tokenizer.apply_chat_template([*example["prompt"], *example["completion"]], tokenize=False)
    ids = torch.tensor([tokenizer(whole)["input_ids"]])
    start = len(tokenizer(prompt)["input_ids"])
    with torch.no_grad():
        chances = model(ids).logits[0, :-1].log_softmax(-1)
    return -float(chances[range(start - 1, ids.shape[1] - 1), ids[0, start:]].mean())


@pytest.mark.parametrize("lesson", [LESSON, CHAT], ids=["text", "chat"])
def test_sft_learns_its_examples_and_writes_an_ordinary_checkpoint(
    checkpoint: Path, tmp_path: Path, lesson: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sft"
    config = trl.SFTConfig(
        **_settings(tmp_path / "scratch", max_steps=20, learning_rate=1e-2, per_device_train_batch_size=4)
    )
    train_sft(checkpoint=checkpoint, examples=[lesson] * 80, config=config, out=out)
    assert _loss(out, lesson) < 0.5 * _loss(checkpoint, lesson)
    assert isinstance(AutoModelForCausalLM.from_pretrained(out), Qwen2ForCausalLM)
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.float32}
    tokenizer, before = AutoTokenizer.from_pretrained(out), AutoTokenizer.from_pretrained(checkpoint)
    assert tokenizer.get_vocab() == before.get_vocab()
    assert tokenizer.chat_template == before.chat_template
    assert sorted(path.name for path in tmp_path.iterdir()) in (["scratch", "sft"], ["sft"])
    assert json.loads((out / "config.json").read_text())["model_type"] == "qwen2"


def test_training_prints_nothing(checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = trl.SFTConfig(**_settings(tmp_path / "scratch", max_steps=1, per_device_train_batch_size=2))
    train_sft(checkpoint=checkpoint, examples=[LESSON] * 2, config=config, out=tmp_path / "sft")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


@pytest.mark.parametrize("own_sampling", [True, False], ids=["our sampler", "TRL's sampler"])
def test_grpo_learns_what_is_rewarded(checkpoint: Path, tmp_path: Path, own_sampling: bool) -> None:
    """The reward is for one token; its probability after the prompt must rise."""
    prompt = LESSON["prompt"]
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    liked = tokenizer(" 7")["input_ids"][0]

    def likes_seven(*, completion_ids: list[list[int]], **columns: object) -> list[float]:
        return [float(ids[0] == liked) for ids in completion_ids]

    config = trl.GRPOConfig(
        **_settings(tmp_path / "scratch", max_steps=8, learning_rate=2e-2, per_device_train_batch_size=256),
        num_generations=256,
        max_completion_length=1,
        beta=0.0,
    )
    train_grpo(
        checkpoint=checkpoint,
        problems=[{"prompt": prompt, "gold": "7"}] * 16,
        rewards=[likes_seven],
        config=config,
        out=tmp_path / "grpo",
        rollout=sample_on_one_device(0) if own_sampling else None,
    )

    def chance(path: Path) -> float:
        model = AutoModelForCausalLM.from_pretrained(path)
        with torch.no_grad():
            return float(model(torch.tensor([tokenizer(prompt)["input_ids"]])).logits[0, -1].softmax(-1)[liked])

    assert chance(tmp_path / "grpo") > 3 * chance(checkpoint)


def test_grpo_is_reproducible(checkpoint: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    weights = []
    for name in ("once", "again"):
        config = trl.GRPOConfig(
            **_settings(tmp_path / "scratch", max_steps=2, learning_rate=1e-2, per_device_train_batch_size=16),
            num_generations=8,
            max_completion_length=4,
        )
        train_grpo(
            checkpoint=checkpoint,
            problems=[{"prompt": LESSON["prompt"], "gold": "7"}] * 4,
            rewards=[lambda *, completions, **columns: [float(len(text)) for text in completions]],
            config=config,
            out=tmp_path / name,
            rollout=sample_on_one_device(5),
        )
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != (checkpoint / "model.safetensors").read_bytes()
    assert tokenizer.eos_token_id is not None


def test_the_reward_is_the_grader_and_needs_an_end() -> None:
    reward = answer_reward(eos_token_id=1)
    assert reward(
        completions=["3 + 4 = 7 # 7", "3 + 4 = 7 # 7", "3 + 4 = 8 # 8", "7"],
        completion_ids=[[5, 1], [5, 6], [5, 1], [5, 1]],
        gold=["7"] * 4,
        prompts=[""] * 4,
    ) == [1.0, 0.0, 0.0, 0.0]
    chat = [[{"role": "assistant", "content": "so 7"}]]
    assert reward(completions=chat, completion_ids=[[5, 1]], gold=["7"]) == [1.0]


def test_training_phones_nowhere(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL reports its use to the Hub by default; here not even a name is looked up."""
    looked_up: list[object] = []

    def refuse(*where: object, **others: object) -> None:
        looked_up.append(where)
        raise OSError("no network in this test")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    config = trl.SFTConfig(**_settings(tmp_path / "scratch", max_steps=1, per_device_train_batch_size=2))
    train_sft(checkpoint=checkpoint, examples=[LESSON] * 2, config=config, out=tmp_path / "sft")
    time.sleep(0.5)  # reports are sent from a thread
    assert looked_up == []


def test_a_checkpoint_appears_whole_or_not_at_all(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_checkpoint(checkpoint)

    def full(*where: object, **others: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokenizer, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(model, tokenizer, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    config = trl.SFTConfig(**_settings(tmp_path / "scratch", max_steps=1))
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        train_sft(checkpoint=tmp_path / "absent", examples=[], config=config, out=tmp_path / "out")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    config = trl.SFTConfig(**_settings(tmp_path / "scratch", max_steps=1))
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        train_sft(checkpoint=tmp_path, examples=[LESSON], config=config, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
