"""The default engine: transformers through lm-evaluation-harness's model class, on one device.

The harness's own loop over tasks is not used: it records neither a run that is killed nor the prompt's style, stops
chat answers at few-shot separators and cuts completions at 256 tokens (docs/decisions/0008-engine.md).
"""

import bisect
import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from reasonvec.errors import CheckpointError
from reasonvec.evaluation.engines.interface import BROKEN, Generated, Sampling
from reasonvec.evaluation.hush import hushed

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]
"""What `load` gives."""
CPU_BATCH = 16
"""What --batch-size auto is on a CPU, where there is no memory to fill and padding costs time."""
LARGEST_BATCH = 64
"""Where auto begins on an accelerator; the harness halves it until a batch fits."""
_PLAIN = "What is 2 + 3?"
"""Some of it every tokenizer of a language model knows."""


class HarnessEngine:
    """A model in memory, asked through the harness. Changing its weights between calls changes the answers."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, batch_size: int | None, longest: int
    ) -> None:
        """`longest` is the most tokens that a prompt and its completion take together; without `batch_size` the
        largest one is found that fits that many, and recorded."""
        self.model = model
        self.tokenizer = tokenizer
        self._ends = _end_tokens(model, tokenizer)
        # what a checkpoint recommends for chatting, such as Qwen2.5's repetition penalty of 1.05, also bends greedy
        # decoding, and donors and target recommend different things
        model.generation_config = GenerationConfig(
            eos_token_id=sorted(self._ends), pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id
        )
        with hushed():
            self._plain = _Recording(model, tokenizer, longest, add_bos_token=None)
            self._chat = _Recording(model, tokenizer, longest, add_bos_token=False)
            self._batch_size = batch_size or (
                CPU_BATCH if model.device.type == "cpu" else int(self._plain._detect_batch_size())
            )
        self._plain.batch_size_per_gpu = self._chat.batch_size_per_gpu = self._batch_size

    @property
    def batch_size(self) -> int:
        return self._batch_size

    def describe(self) -> dict[str, Any]:
        on_cpu = self.model.device.type == "cpu"
        return {
            "name": "transformers",
            "device": "cpu" if on_cpu else torch.cuda.get_device_name(self.model.device),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads() if on_cpu else None,
            "batch_size": self._batch_size,
            "versions": {name: version(name) for name in ("torch", "transformers", "lm_eval")},
        }

    def generate(
        self, prompts: Sequence[str], *, sampling: Sampling, sample: int, stop: Sequence[str], chat: bool
    ) -> list[Generated]:
        harness = self._chat if chat else self._plain
        # in the harness's own order, so that what it records is in ours
        order = sorted(
            range(len(prompts)), key=lambda place: (-len(harness.tok_encode(prompts[place])), prompts[place])
        )
        settings: dict[str, Any] = {"until": list(stop), "max_gen_toks": sampling.max_new_tokens, "do_sample": False}
        if sampling.temperature:
            # 0 and 1 switch transformers' own defaults off: the whole distribution is drawn from
            settings |= {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
        requests = [
            Instance("generate_until", doc={}, arguments=(prompts[place], settings), idx=place) for place in order
        ]
        with hushed(), torch.inference_mode(), _seeded(self.model.device, sampling.seed, sample, *prompts):
            try:
                texts = harness.generate_until(requests, disable_tqdm=True)
            except RuntimeError:
                if not harness.broken:  # torch refuses to draw from NaN
                    raise
                texts = []
        if harness.broken:
            raise CheckpointError(f"a token's score is NaN in the batch of {prompts[0][:60]!r}: {BROKEN}")
        found: list[Generated | None] = [None] * len(prompts)
        for place, text, ids in zip(order, texts, harness.generated, strict=True):
            found[place] = self._generated(text, ids, stop)
        return [each for each in found if each]

    def log_likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        requests = [Instance("loglikelihood", doc={}, arguments=pair, idx=0) for pair in pairs]
        with hushed(), torch.inference_mode():
            return [float(value) for value, _ in self._plain.loglikelihood(requests, disable_tqdm=True)]

    def _generated(self, text: str, ids: list[int], stop: Sequence[str]) -> Generated:
        """`ids` go on to the end of the batch's longest completion."""
        ends = [place + 1 for place, token in enumerate(ids) if token in self._ends][:1]
        stopped = self._first_with(stop, ids[: ends[0]] if ends else ids)
        if stopped is not None:
            ends = [stopped]
        return Generated(text, ends[0], True) if ends else Generated(text, len(ids), False)

    def _first_with(self, stop: Sequence[str], ids: list[int]) -> int | None:
        """How many tokens it takes to have written a stop string; None where none was."""

        def holds(count: int) -> bool:
            written = self.tokenizer.decode(ids[:count], skip_special_tokens=True)
            return any(each in written for each in stop)

        if not stop or not holds(len(ids)):
            return None
        return bisect.bisect_left(range(len(ids)), True, key=holds)


class _Recording(HFLM):  # type: ignore[misc]
    """The harness's model, which also keeps the token ids of what it generated last: its texts do not tell whether a
    completion was cut off."""

    generated: list[list[int]]
    """Of the last call, one list for each row, in the order of its only batch."""
    broken: bool
    """Whether a score of the last call was NaN, of which the likeliest token is taken without a word."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, longest: int, *, add_bos_token: bool | None
    ) -> None:
        super().__init__(
            pretrained=model, tokenizer=tokenizer, max_length=longest, add_bos_token=add_bos_token,
            max_batch_size=LARGEST_BATCH, batch_size=1,
        )  # fmt: skip

    def _model_generate(self, context: torch.Tensor, **settings: Any) -> torch.Tensor:
        watch = _Watch()
        try:
            rows: torch.Tensor = super()._model_generate(context, logits_processor=[watch], **settings)
        finally:
            self.broken = watch.broken is not None and bool(watch.broken)
        self.generated = rows[:, context.shape[1] :].tolist()
        return rows


class _Watch(LogitsProcessor):  # type: ignore[misc]
    """Looks for NaN and changes nothing; asks the device only once, at the end."""

    broken: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        found = scores.isnan().any()
        self.broken = found if self.broken is None else self.broken | found
        return scores


def load(checkpoint: Path, *, to_change: bool = False) -> Loaded:
    """Model and tokenizer of a directory, on the GPU if there is one, in the dtype it is stored in; no network, no
    code of the checkpoint's. With `to_change` the weights are in memory of their own and not a mapped file's, where the
    first change of a page takes ten times as long as to copy it.

    Raises CheckpointError where transformers cannot read it, or would fill in weights that the checkpoint lacks.
    """
    tokenizer = load_tokenizer(checkpoint)
    with hushed():
        try:
            model, found = AutoModelForCausalLM.from_pretrained(
                checkpoint, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype="auto",
                output_loading_info=True,
            )  # fmt: skip
        except (ValueError, OSError, ImportError, RuntimeError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"transformers {transformers.__version__} cannot load {checkpoint}: {_first_line(error)}"
            ) from None
    wrong = [
        f"{kind}: {', '.join(sorted(map(str, found[key]))[:3])} ({len(found[key])} in all)"
        for key, kind in (("missing_keys", "missing"), ("mismatched_keys", "of another shape"))
        if found.get(key)
    ]
    if wrong:
        raise CheckpointError(
            f"{checkpoint} does not hold all weights of its {model.config.model_type}: {'; '.join(wrong)}. "
            f"transformers would fill them with random numbers, and the score would be of another model. Fetch or make "
            f"it again."
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if to_change and device == "cpu":
        with torch.no_grad():
            for parameter in model.parameters():  # tied ones are one parameter
                parameter.data = parameter.data.clone()
    return model.to(device).eval(), tokenizer


def load_tokenizer(checkpoint: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory. Raises CheckpointError where transformers cannot read it."""
    with hushed():
        try:
            tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # noqa: BLE001  (a stranger's files: whatever the libraries raise on them)
            raise CheckpointError(f"the tokenizer of {checkpoint} cannot be loaded: {_first_line(error)}") from None
    if tokenizer.eos_token_id is None:
        raise CheckpointError(
            f"the tokenizer of {checkpoint} has no end token, so no completion could ever end. Set `eos_token` in its "
            f"tokenizer_config.json."
        )
    if not set(tokenizer(_PLAIN, add_special_tokens=False)["input_ids"]) - {tokenizer.unk_token_id}:
        # transformers makes one without a vocabulary where its file is not there
        raise CheckpointError(
            f"the tokenizer of {checkpoint} knows nothing of {_PLAIN!r}: it has {len(tokenizer)} tokens, so a model "
            f"would be asked nothing. Its vocabulary was lost; copy tokenizer.json (or vocab.json and merges.txt, or "
            f"tokenizer.model) from where the model came from."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # padding stands on the left and is masked
    return tokenizer


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every token that ends a completion: the tokenizer's, and those that the checkpoint's generation settings name."""
    stated = getattr(model.generation_config, "eos_token_id", None)
    more = [] if stated is None else stated if isinstance(stated, list) else [stated]
    if not all(type(token) is int for token in more):
        raise CheckpointError(
            f"generation_config.json of {model.name_or_path} says that completions end with {stated!r}; `eos_token_id` "
            f"is the number of a token, or a list of them. Where they end decides what is graded; mend it."
        )
    return frozenset([int(tokenizer.eos_token_id), *more])


@contextlib.contextmanager
def _seeded(device: torch.device, *key: object) -> Iterator[None]:
    """torch's generators set from the key alone, and put back afterwards."""
    digest = hashlib.blake2b("\0".join(map(str, key)).encode(errors="surrogatepass"), digest_size=8).digest()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(digest, "big") >> 1)
        yield


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
