"""What is checked of a model, its tokenizer and the disk before a training's first step."""

import shutil
from pathlib import Path
from typing import Any

from reasonvec.errors import CheckpointError, IncompatibleError, OutputError, UsageError
from reasonvec.weights.checkpoint import Checkpoint
from reasonvec.weights.tokenizer import tokenizer_findings


def check_tokens(tokenizer: Any, location: str, *, pad_token: str | None) -> None:
    """Give the tokenizer the pad token that was named, and raise CheckpointError unless it has an end and a pad token.

    They may be one, as Qwen2.5's base models have it: what is padding is told by lengths here, not by the token.
    """
    if pad_token is not None:
        if pad_token not in tokenizer.get_vocab():
            raise UsageError(f"--pad-token {pad_token!r} is no token of {location}.")
        tokenizer.pad_token = pad_token
    if tokenizer.eos_token_id is None:
        raise CheckpointError(f"The tokenizer of {location} has no end token (eos_token), so a model trained with it "
                              f"could not learn to stop. Name one in its tokenizer_config.json.")  # fmt: skip
    if tokenizer.pad_token_id is None:
        unused = [name for name in tokenizer.get_vocab() if "pad" in name.lower() and name != tokenizer.eos_token]
        candidate = min(unused, key=len, default=tokenizer.eos_token)
        raise CheckpointError(
            f"The tokenizer of {location} has no pad token, so texts of different lengths cannot be put together. Name "
            f"one of its tokens that no text holds, or its end token: --pad-token {candidate!r}. The donors keep it."
        )


def check_same_tokenizer(donor: Checkpoint, base: Checkpoint) -> None:
    """Raise IncompatibleError where an SFT donor cuts text into other tokens than the base does: rows of the two
    embeddings would stand for different words, and their difference for nothing."""
    findings = [finding for finding in tokenizer_findings(donor, base, True) if finding.level == "blocking"]
    if findings:
        raise IncompatibleError(
            f"The SFT donor {donor.location} and the base {base.location} have different tokenizers: "
            f"{'; '.join(finding.evidence for finding in findings)} Train both donors from one base."
        )


def check_disk(where: Path, *, needed: int, kept: int) -> None:
    """Raise OutputError where what a run keeps, in bytes, cannot fit in `where`, which need not exist yet."""
    there = next(path for path in (where.absolute(), *where.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise OutputError(
            f"{where} needs some {needed / 1e9:.1f} GB for states to resume from, {kept} checkpoint{'s' * (kept > 1)} "
            f"along the way and the donor, and {free / 1e9:.1f} GB are free. Nothing was trained. Make room, name "
            f"another --out, or keep fewer with --trajectory."
        )
