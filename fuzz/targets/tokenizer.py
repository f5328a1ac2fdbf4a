"""The comparison of tokenizers, chat templates and configurations of two checkpoints, in `donor` and beside it."""

import json
from pathlib import Path
from typing import Any

from fuzz.pieces import LETTERS, LINK, PIPE, PLAIN, Piece, cut, join, laid_out
from reasonvec.weights.checkpoint import Checkpoint
from reasonvec.weights.configuration import configuration_findings
from reasonvec.weights.tokenizer import tokenizer_findings


def run(data: bytes, directory: Path) -> None:
    """Compare them, either way round."""
    with laid_out(cut(data), directory):
        sides = [Checkpoint(name, directory / name, None, {}) for name in ("donor", ".")]
        for donor, target in (sides, sides[::-1]):
            found = tokenizer_findings(donor, target, embeddings_included=donor is sides[0])
            for finding in (*found, *configuration_findings(donor, target)):
                words = json.dumps(finding.to_json())
                assert len(words) < 8000
                assert all(text.isprintable() for text in finding.to_json().values())


def _pieces(**contents: Any) -> list[Piece]:
    """Files by name, with `_` for the point and `donor_` for the folder; JSON of what is no text."""
    pieces = []
    for name, content in contents.items():
        path = name.replace("donor_", "donor/").replace("__", ".")
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        pieces.append(Piece(LETTERS[path], PLAIN, text.encode()))
    return pieces


def seeds() -> dict[str, bytes]:
    """Every kind of file, equal and different, and some of each kind that are none."""
    bpe: dict[str, Any] = {
        "added_tokens": [{"id": 4, "content": "<think>"}], "normalizer": {"type": "NFC"}, "pre_tokenizer": None,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "é": 3}, "merges": [["a", "b"], ["ab", "é"]]},
    }  # fmt: skip
    older = {**bpe, "model": {**bpe["model"], "merges": ["a b", "ab é"]}}
    moved = {**bpe, "added_tokens": [], "model": {"vocab": {"b": 0, "a": 1, "c": 2, "d": 9}, "merges": []}}
    unigram = {"model": {"type": "Unigram", "vocab": [["a", 0.0], ["b", -1.5]]}, "normalizer": {"x": float("nan")}}
    words = {"eos_token": {"content": "</s>"}, "chat_template": [{"name": "default", "template": "{{ x }}"}]}
    config = {"vocab_size": 5, "eos_token_id": [1, 2], "rope_scaling": {"type": "yarn", "factor": 2.0}}
    inputs = {
        "equal": _pieces(tokenizer__json=bpe, donor_tokenizer__json=bpe),
        "older": _pieces(tokenizer__json=older, donor_tokenizer__json=bpe),
        "moved": _pieces(tokenizer__json=moved, donor_tokenizer__json=bpe),
        "unigram": _pieces(tokenizer__json=unigram, donor_tokenizer__json=bpe),
        "vocab": _pieces(vocab__json={"a": 0}, added_tokens__json={"b": 1}, donor_vocab__json={"a": 1}),
        "words": _pieces(tokenizer_config__json=words, donor_tokenizer_config__json={"eos_token": "x"},
                         chat_template__jinja="{{ y }}", donor_chat_template__jinja="{{ z }}"),
        "configurations": _pieces(config__json=config, donor_config__json={**config, "vocab_size": 9, "head_dim": 4}),
        "one-side": _pieces(donor_tokenizer__json=bpe),
        "nothing": [],
        "pipe": [*_pieces(donor_tokenizer__json=bpe), Piece(LETTERS["tokenizer.json"], PIPE, b"")],
        "link": [*_pieces(donor_tokenizer__json=bpe), Piece(LETTERS["tokenizer.json"], LINK, b"\x03")],
        "twice": _pieces(tokenizer__json='{"model":{"vocab":{"a":0,"a":1}}}', donor_tokenizer__json=bpe),
        "surrogate": _pieces(tokenizer__json='{"model":{"vocab":{"\\ud800":0}}}', donor_tokenizer__json=bpe),
        "large-id": _pieces(tokenizer__json={"model": {"vocab": {"a": 2**63}}}, donor_tokenizer__json=bpe),
        "no-map": _pieces(tokenizer__json={"model": {"vocab": [1]}}, donor_tokenizer__json={"model": []}),
        "no-tokens": _pieces(tokenizer__json={"model": {"vocab": {}}, "added_tokens": [1]}, donor_tokenizer__json=bpe),
        "list": _pieces(tokenizer__json=[], donor_tokenizer__json=bpe, config__json=[]),
        "cut-off": _pieces(tokenizer__json='{"model":{"vocab":{"a":0,', donor_tokenizer__json=bpe),
    }  # fmt: skip
    return {name: join(pieces) for name, pieces in inputs.items()}
