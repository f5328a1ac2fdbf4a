"""The loss that TRL computes in our runs is the published one: held against NumPy, from rewards and logits alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from reasonvec.training.donor import train_donor
from reasonvec.training.trainers import GrpoTrainer
from tests.training.small import request, small_ids

pytestmark = pytest.mark.lab

EPSILON, BETA = 0.05, 0.1
Array = Any


def _log_probabilities(model: Any, inputs: dict[str, Array]) -> Array:
    """(rows, tokens) float64: log p of every completion token given all before it."""
    ids = np.concatenate([inputs["prompt_ids"], inputs["completion_ids"]], axis=1)
    mask = np.concatenate([inputs["prompt_mask"], inputs["completion_mask"]], axis=1)
    position = np.maximum(mask.cumsum(axis=1) - 1, 0)
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask), position_ids=torch.tensor(position)
        ).logits.double().numpy()[:, inputs["prompt_ids"].shape[1] - 1 : -1]  # fmt: skip
    largest = logits.max(axis=-1, keepdims=True)
    normalised = logits - largest - np.log(np.exp(logits - largest).sum(axis=-1, keepdims=True))
    found: Array = np.take_along_axis(normalised, inputs["completion_ids"][..., None], axis=-1)[..., 0]
    return found


def _advantages(inputs: dict[str, Array]) -> Array:
    """(r - mean) / std within the completions of one prompt, Shao et al. 2024, arXiv:2402.03300, section 4.1.2."""
    rewards = np.array([
        small_ids(completion_ids=[row[mask == 1].tolist()])[0]
        for row, mask in zip(inputs["completion_ids"], inputs["completion_mask"], strict=True)
    ])  # fmt: skip
    advantages = np.empty_like(rewards)
    for prompt in {row.tobytes() for row in inputs["prompt_ids"]}:
        group = np.array([row.tobytes() == prompt for row in inputs["prompt_ids"]])
        assert group.sum() == 4
        advantages[group] = (rewards[group] - rewards[group].mean()) / (rewards[group].std(ddof=1) + 1e-4)
    return advantages


def _loss(kind: str, inputs: dict[str, Array], now: Array, old: Array, reference: Array, *, corrected: bool) -> float:
    """Equation 3 of arXiv:2402.03300 with the KL estimate of equation 4; `dapo` is token by token, arXiv:2503.14476.
    `corrected` weighs that estimate by the ratio, DeepSeek-V3.2, arXiv:2512.02556, as TRL does by default."""
    ratio, advantage, mask = np.exp(now - old), _advantages(inputs)[:, None], inputs["completion_mask"]
    clipped = np.clip(ratio, 1 - EPSILON, 1 + EPSILON)
    divergence = np.exp(reference - now) - (reference - now) - 1
    if corrected:
        divergence = ratio * divergence
    objective = np.minimum(ratio * advantage, clipped * advantage) - BETA * divergence
    if kind == "grpo":
        return -float(((objective * mask).sum(axis=1) / mask.sum(axis=1)).mean())
    return -float((objective * mask).sum() / mask.sum())


@pytest.mark.parametrize(("kind", "corrected"), [("grpo", False), ("dapo", False), ("dapo", True)])
def test_the_loss_is_the_published_formula(
    kind: str, corrected: bool, base: Path, sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two updates to a batch of completions: at the second the ratio is not 1 and some tokens are clipped."""
    steps: list[tuple[dict[str, Any], dict[str, Array], float]] = []
    original = GrpoTrainer.compute_loss

    def recording(self: Any, model: Any, inputs: Any, *arguments: Any, **others: Any) -> Any:
        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        arrays = {name: inputs[name].numpy().copy() for name in ("prompt_ids", "prompt_mask", "completion_ids",
                                                                 "completion_mask")}  # fmt: skip
        loss = original(self, model, inputs, *arguments, **others)
        steps.append((weights, arrays, float(loss)))
        return loss

    monkeypatch.setattr(GrpoTrainer, "compute_loss", recording)
    train_donor(request("grpo", base, sums, tmp_path / "out", f"beta={BETA}", f"epsilon={EPSILON}", f"loss_type={kind}",
                        "num_iterations=2", "steps_per_generation=1", "learning_rate=1e-2", "max_steps=4",
                        f"use_bias_correction_kl={str(corrected).lower()}"))  # fmt: skip
    model, clipped = AutoModelForCausalLM.from_pretrained(base), 0
    untrained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for number, (weights, inputs, loss) in enumerate(steps):
        model.load_state_dict(untrained)
        reference = _log_probabilities(model, inputs)
        model.load_state_dict(steps[number - number % 2][0])  # as it was when the completions were sampled
        old = _log_probabilities(model, inputs)
        model.load_state_dict(weights)
        now = _log_probabilities(model, inputs)
        assert loss == pytest.approx(_loss(kind, inputs, now, old, reference, corrected=corrected), abs=2e-6)
        clipped += int((np.abs(np.exp(now - old) - 1) > EPSILON).sum())
    assert len(steps) == 4
    assert clipped > 0
