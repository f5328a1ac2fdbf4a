"""What lm-evaluation-harness needs of vLLM, done by transformers on the CPU, one request at a time.

It stands in for vLLM where there is no GPU: tested is that the engine asks rightly and reads the answers rightly.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@dataclass
class SamplingParams:
    temperature: float = 1.0
    max_tokens: int = 16
    stop: list[str] = field(default_factory=list)
    seed: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True


def TokensPrompt(*, prompt_token_ids: list[int]) -> dict[str, Any]:  # noqa: N802  (vLLM's name)
    return {"prompt_token_ids": prompt_token_ids}


class LLM:
    def __init__(self, *, model: str, max_model_len: int, **_: Any) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(model, local_files_only=True).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
        settings = SimpleNamespace(max_model_len=max_model_len, dtype=self._model.dtype)
        self.llm_engine = SimpleNamespace(model_config=settings)

    def generate(self, prompts: list[Any], *, sampling_params: list[SamplingParams], **_: Any) -> list[Any]:
        return [self._one(p["prompt_token_ids"], s) for p, s in zip(prompts, sampling_params, strict=True)]

    @torch.inference_mode()
    def _one(self, ids: list[int], settings: SamplingParams) -> Any:
        if settings.prompt_logprobs is not None:
            values = self._model(torch.tensor([ids])).logits[0].log_softmax(-1)
            logprobs = [None, *({ids[n + 1]: values[n, ids[n + 1]].item()} for n in range(len(ids) - 1))]
            return SimpleNamespace(prompt_logprobs=logprobs, outputs=[])
        assert settings.temperature == 0, "drawing is not done here"
        row = list(ids)
        for _ in range(settings.max_tokens):
            row.append(int(self._model(torch.tensor([row])).logits[0, -1].argmax()))
            text = self._tokenizer.decode(row[len(ids) :], skip_special_tokens=settings.skip_special_tokens)
            if row[-1] == self._tokenizer.eos_token_id:
                return _output(text, row[len(ids) :], "stop")
            for stop in settings.stop:
                if stop in text:
                    return _output(text[: text.index(stop)], row[len(ids) :], "stop")
        return _output(text, row[len(ids) :], "length")


def _output(text: str, token_ids: list[int], finish_reason: str) -> Any:
    return SimpleNamespace(outputs=[SimpleNamespace(text=text, token_ids=token_ids, finish_reason=finish_reason)])
