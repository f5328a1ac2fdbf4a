"""vLLM behind the same interface, through lm-evaluation-harness's class for it; needs the extra [vllm] and a GPU.

vLLM packs requests as they come, so even greedy completions may differ between two runs; docs/evaluation.md says how
an A/A run measures that.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.vllm_causallms import VLLM

from reasonvec.evaluation.arm import Arm
from reasonvec.evaluation.engines.interface import Generated, Sampling
from reasonvec.evaluation.hush import hushed
from reasonvec.weights.application import apply
from reasonvec.weights.job import Application

BATCH = 256
"""Requests that are handed over at once, and recorded together."""


@contextlib.contextmanager
def open_engine(
    arm: Arm, *, longest: int, batch_size: int | None, seed: int, scratch: Path
) -> Iterator[tuple["VllmEngine", Application | None]]:
    """Load an arm. vLLM reads a checkpoint from disk alone, so one with a vector is written beside the runs first and
    removed at the end; it takes the space of the checkpoint. What was written comes with the engine."""
    made = None
    with contextlib.ExitStack() as stack:
        path = str(arm.checkpoint.path)
        if arm.vector is not None:
            scratch.parent.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=".reasonvec-", dir=scratch.parent))
            path = str(Path(folder) / "enhanced")
            # by its path, since what a Hub id names may be another commit by now
            vector = arm.vector.location if arm.vector.mirror else arm.vector.path
            made = apply(vectors=[(vector, arm.alpha or 0.0)], target=arm.checkpoint.path, out=path)
        with hushed():
            size = batch_size or BATCH
            # one token more than is asked for: log-likelihoods need room to generate one
            model = _Recording(pretrained=path, max_model_len=longest + 1, seed=seed, batch_size=size)
        yield VllmEngine(model, batch_size=size), made


class VllmEngine:
    """A model that vLLM holds."""

    def __init__(self, model: Any, *, batch_size: int) -> None:
        self._model = model
        self._batch_size = batch_size

    @property
    def batch_size(self) -> int:
        return self._batch_size

    def describe(self) -> dict[str, Any]:
        import torch

        settings = self._model.model.llm_engine.model_config
        return {
            "name": "vllm",
            "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu",
            "dtype": str(settings.dtype).removeprefix("torch."),
            "threads": None,
            "batch_size": self._batch_size,
            "versions": {name: version(name) for name in ("torch", "transformers", "lm_eval", "vllm")},
        }

    def generate(
        self, prompts: Sequence[str], *, sampling: Sampling, sample: int, stop: Sequence[str], chat: bool
    ) -> list[Generated]:
        self._model.add_bos_token = False if chat else None  # a chat template has put it already
        # in the harness's own order, so that what it records is in ours
        order = sorted(
            range(len(prompts)), key=lambda place: (-len(self._model.tok_encode(prompts[place])), prompts[place])
        )
        requests = [
            Instance(
                "generate_until", doc={}, idx=place,
                arguments=(prompts[place], _settings(prompts[place], sampling, sample, stop)),
            )
            for place in order
        ]  # fmt: skip
        with hushed():
            self._model.generate_until(requests, disable_tqdm=True)
        found: dict[int, Generated] = {}
        for place, output in zip(order, self._model.generated, strict=True):
            first = output.outputs[0]
            found[place] = Generated(first.text, len(first.token_ids), first.finish_reason == "stop")
        return [found[place] for place in range(len(prompts))]

    def log_likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self._model.add_bos_token = None
        requests = [Instance("loglikelihood", doc={}, arguments=pair, idx=0) for pair in pairs]
        with hushed():
            return [float(value) for value, _ in self._model.loglikelihood(requests, disable_tqdm=True)]


class _Recording(VLLM):  # type: ignore[misc]
    """The harness's model, which also keeps vLLM's own outputs: its texts do not tell whether one was cut off."""

    generated: list[Any]

    def _model_generate(self, requests: Any, generate: bool = False, sampling_params: Any = None) -> Any:
        outputs = super()._model_generate(requests, generate=generate, sampling_params=sampling_params)
        if generate:
            self.generated = list(outputs)
        return outputs


def _settings(prompt: str, sampling: Sampling, sample: int, stop: Sequence[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "until": list(stop),
        "max_gen_toks": sampling.max_new_tokens,
        "do_sample": False,
        "skip_special_tokens": True,
    }
    if sampling.temperature:
        key = f"{sampling.seed}/{sample}/{prompt}".encode(errors="surrogatepass")
        seed = int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "big") >> 1
        settings |= {"do_sample": True, "temperature": sampling.temperature, "seed": seed}
    return settings
