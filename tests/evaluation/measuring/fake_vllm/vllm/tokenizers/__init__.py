"""Stands in for vLLM's."""

from typing import Any

from transformers import AutoTokenizer


def get_tokenizer(name: str, **_: Any) -> Any:
    return AutoTokenizer.from_pretrained(name, local_files_only=True)
