"""Whether the donors and the target write text with the same numbers: the map from tokens to ids, special tokens, rows
of the embedding, chat template. From the files alone; no tokenizer is built and no code from a checkpoint is run.
"""

from collections.abc import Mapping
from heapq import nsmallest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonvec.weights.checkpoint import MAX_TEMPLATE, Checkpoint
from reasonvec.weights.files import same_content
from reasonvec.weights.findings import Finding, enumerated, first_of, shown
from reasonvec.weights.modules import kind_of
from reasonvec.weights.strict_json import Budget
from reasonvec.weights.vocabulary import UnreadableError, Vocabulary, read_vocabulary

_OPAQUE = ("tokenizer.model", "vocab.txt", "qwen.tiktoken", "tokenizer.tiktoken", "tiktoken.model", "spiece.model")
_SOURCES = ("tokenizer.json", "vocab.json", "added_tokens.json", *_OPAQUE)
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


def tokenizer_findings(donor: Checkpoint, target: Checkpoint, embeddings_included: bool) -> list[Finding]:
    """Compare the tokenizers. `embeddings_included`: the vector changes rows of the target's embedding.

    Files that are equal byte for byte are not parsed. Raises CheckpointError for a file that is not JSON.
    """
    return [
        *_vocabulary_findings(donor, target, embeddings_included),
        *_special_token_findings(donor, target),
        *_template_findings(donor, target),
    ]


def _vocabulary_findings(donor: Checkpoint, target: Checkpoint, embeddings_included: bool) -> list[Finding]:
    rows = embedding_rows(donor), embedding_rows(target)
    if _same_files(donor, target) and (rows[0] == rows[1] or None in rows):
        return []
    try:
        budget = Budget()  # one for both: they are held at once to be compared
        ours = read_vocabulary(donor, budget)
        theirs = read_vocabulary(target, budget, like=ours)
    except UnreadableError as error:
        return [
            Finding(
                "warning",
                "A tokenizer could not be compared",
                f"{error}.",
                "Check with transformers that both give the same ids for the same text before you trust the result.",
            )
        ]
    if ours is None or theirs is None:
        return _opaque_findings(donor, target, ours, theirs)
    return [
        *_token_findings(ours, theirs, embeddings_included),
        *_rule_findings(ours, theirs),
        *_row_findings(ours, theirs, rows, embeddings_included),
    ]


def _same_files(donor: Checkpoint, target: Checkpoint) -> bool:
    """Whether what defines the tokens is there on both sides and equal byte for byte."""
    if donor.file("tokenizer.json") is not None:
        return _same_file(donor, target, "tokenizer.json")
    names = [name for name in _SOURCES if donor.file(name) is not None or target.file(name) is not None]
    return bool(names) and all(_same_file(donor, target, name) for name in names)


def _same_file(donor: Checkpoint, target: Checkpoint, name: str) -> bool:
    ours, theirs = donor.file(name), target.file(name)
    return ours is not None and theirs is not None and same_content(ours, theirs)


def _token_findings(ours: Vocabulary, theirs: Vocabulary, embeddings_included: bool) -> list[Finding]:
    # counted and looked up anew instead of gathered: two vocabularies may differ in every token
    shared = sum(token in theirs.ids for token in ours.ids)
    moved = sum(theirs.ids.get(token, index) != index for token, index in ours.ids.items())
    findings = []
    if moved:
        first = nsmallest(3, ((i, t) for t, i in ours.ids.items() if theirs.ids.get(t, i) != i))
        cases = [f"{shown(t)} is {i} for the donors and {theirs.ids[t]} for the target" for i, t in first]
        findings.append(
            Finding(
                "blocking" if embeddings_included else "warning",
                "Tokens have other ids",
                f"{moved} of {shared} shared tokens have moved: {first_of(cases, moved)}.",
                "A row of the vector's embedding would be added to another token's row. Leave the embeddings out with "
                "--skip, or use a target with the donors' tokenizer."
                if embeddings_included
                else "The embeddings are left out, so no row goes astray; yet the donors' layers were trained on other "
                "tokens. Expect less of the vector.",
            )
        )
    lost, gained = _ids_of_own(ours, theirs), _ids_of_own(theirs, ours)
    renamed = np.intersect1d(lost, gained)
    if renamed.size:
        here, there = _own(ours, theirs, renamed[:3]), _own(theirs, ours, renamed[:3])
        cases = [
            f"id {i} is {shown(here[i])} for the donors and {shown(there[i])} for the target" for i in sorted(here)
        ]
        count = int(np.isin(lost, renamed).sum())
        findings.append(
            Finding(
                "warning",
                "Tokens were renamed",
                f"{count} ids stand for another token: {first_of(cases, count)}.",
                "What the donors learnt of their token goes to the target's. Look whether any of them matters, as a "
                "token that opens a chain of thought would.",
            )
        )
    return findings + _lacking(ours, theirs, lost[~np.isin(lost, renamed)], gained[~np.isin(gained, renamed)])


def _ids_of_own(vocabulary: Vocabulary, other: Vocabulary) -> NDArray[np.int64]:
    """The ids, ascending, of the tokens that the other lacks."""
    own = (index for token, index in vocabulary.ids.items() if token not in other.ids)
    return np.sort(np.fromiter(own, np.int64))


def _own(vocabulary: Vocabulary, other: Vocabulary, ids: NDArray[np.int64]) -> dict[int, str]:
    """By a few ids, the tokens with them that the other lacks."""
    wanted = set(ids.tolist())
    return {index: token for token, index in vocabulary.ids.items() if index in wanted and token not in other.ids}


def _lacking(
    ours: Vocabulary, theirs: Vocabulary, only_ours: NDArray[np.int64], only_theirs: NDArray[np.int64]
) -> list[Finding]:
    findings = []
    for level, ids, vocabulary, other, title, advice in (
        (
            "warning",
            only_ours,
            ours,
            theirs,
            "The target lacks tokens of the donors",
            "What the vector does with them has no effect there. If the donors' answers rely on one (a tag around the "
            "reasoning, an end of turn), the target cannot write it.",
        ),
        (
            "note",
            only_theirs,
            theirs,
            ours,
            "The target has tokens that the donors lack",
            "The donors never saw them; rows for them get padding's delta, or none.",
        ),
    ):
        if ids.size:
            cases = [f"{shown(token)} ({i})" for i, token in sorted(_own(vocabulary, other, ids[:6]).items())]
            evidence = f"{ids.size} tokens of {len(vocabulary.ids)}: {first_of(cases, ids.size)}."
            findings.append(Finding("warning" if level == "warning" else "note", title, evidence, advice))
    return findings


def _rule_findings(ours: Vocabulary, theirs: Vocabulary) -> list[Finding]:
    parts = sorted(p for p in ours.rules.keys() & theirs.rules.keys() if ours.rules[p] != theirs.rules[p])
    if not parts:
        return []
    return [
        Finding(
            "warning" if "merges" in parts else "note",
            "Text is cut into tokens by other rules",
            f"tokenizer.json differs in {', '.join(parts)}.",
            "The target keeps its own rules. The same text may become other tokens than the donors were trained on.",
        )
    ]


def embedding_rows(checkpoint: Checkpoint) -> int | None:
    """Rows of the embedding: as the configuration says, else as the tensor shows; None where neither does."""
    text_config = checkpoint.config.get("text_config")
    nested = text_config.get("vocab_size") if isinstance(text_config, dict) else None
    rows = checkpoint.config.get("vocab_size", nested)
    if type(rows) is int:
        return rows
    tables = [e.shape[0] for name, e in checkpoint.tensors.items() if len(e.shape) == 2 and is_token_table(name)]
    return max(tables, default=None)


def is_token_table(name: str) -> bool:
    """Whether a tensor, by its name, has a row for every token; position embeddings have not."""
    return kind_of(name) == "embedding" and not any(part in name for part in ("wpe", "position"))


def _row_findings(
    ours: Vocabulary, theirs: Vocabulary, rows: tuple[int | None, int | None], embeddings_included: bool
) -> list[Finding]:
    findings = []
    needed = [max(v.ids.values(), default=-1) + 1 for v in (ours, theirs)]
    described = [
        f"{count} rows for ids up to {last - 1} ({who})"
        for count, last, who in zip(rows, needed, ("donors", "target"), strict=True)
        if count is not None
    ]
    if rows[0] is not None and rows[1] is not None and rows[0] != rows[1]:
        same = ours.ids == theirs.ids
        findings.append(
            Finding(
                "note",
                "The embeddings have another number of rows",
                f"{'; '.join(described)}." + (" The tokens are the same, so only padding differs." if same else ""),
                "A delta is added to a tensor of its own shape only. Take the rest of the vector: --skip the input and "
                "output embeddings.",
            )
        )
    if rows[1] is not None and needed[1] > rows[1]:
        findings.append(
            Finding(
                "warning",
                "The target has tokens without a row",
                f"Its embedding has {rows[1]} rows, its tokenizer ids up to {needed[1] - 1}.",
                "Such a token stops the model with an index error. The checkpoint was saved with another tokenizer.",
            )
        )
    elif embeddings_included and rows[0] == rows[1] and rows[0] is not None and needed[0] < needed[1]:
        findings.append(
            Finding(
                "note",
                "Some of the target's tokens stand in the donors' padding",
                f"{'; '.join(described)}.",
                "Their rows get whatever training did to padding, which is next to nothing.",
            )
        )
    return findings


def _opaque_findings(
    donor: Checkpoint, target: Checkpoint, ours: Vocabulary | None, theirs: Vocabulary | None
) -> list[Finding]:
    """Where at least one side has no map that can be read: compare files by their bytes."""
    shared = [name for name in _OPAQUE if donor.file(name) is not None and target.file(name) is not None]
    if differing := [name for name in shared if not _same_file(donor, target, name)]:
        return [
            Finding(
                "warning",
                "The tokenizers differ",
                f"{', '.join(differing)} differs; its content is not read here.",
                "Save both tokenizers with transformers, which writes a tokenizer.json, to see which tokens differ.",
            )
        ]
    if shared:
        return []
    sides = {donor.location: ours, target.location: theirs}
    lacking = [where for where, vocabulary in sides.items() if vocabulary is None]
    return [
        Finding(
            "note",
            "The tokenizers could not be compared",
            f"No tokenizer that can be read lies in {' nor in '.join(lacking)}.",
            "See yourself that both give the same ids for the same text.",
        )
    ]


def _special_token_findings(donor: Checkpoint, target: Checkpoint) -> list[Finding]:
    ours, theirs = _special_tokens(donor), _special_tokens(target)
    cases, level = [], "note"
    for name in sorted(ours.keys() & theirs.keys()):
        if ours[name] != theirs[name]:
            cases.append(f"{name} is {shown(ours[name])} for the donors and {shown(theirs[name])} for the target")
            if name.startswith(("bos", "eos")):
                level = "warning"
    if not cases:
        return []
    return [
        Finding(
            "warning" if level == "warning" else "note",
            "Special tokens differ",
            enumerated(cases) + ".",
            "The target keeps its own. A vector may carry the donors' habit of where to end an answer: see in the "
            "evaluation that completions still stop.",
        )
    ]


def _special_tokens(checkpoint: Checkpoint) -> dict[str, Any]:
    """Names from the tokenizer's files and ids from the model's, where they are stated."""
    found: dict[str, Any] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        content = _object(checkpoint, file)
        for name in _SPECIAL:
            token = content.get(name)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                found[name] = token
    for file in ("config.json", "generation_config.json"):
        content = _object(checkpoint, file)
        for name in _SPECIAL:
            ids = content.get(f"{name}_id")
            if isinstance(ids, (int, list)):
                found[f"{name}_id in {file}"] = ids
    return found


def _template_findings(donor: Checkpoint, target: Checkpoint) -> list[Finding]:
    ours, theirs = _template(donor), _template(target)
    if ours == theirs:
        return []
    who = "Only the target has one" if not ours else "Only the donors have one" if not theirs else "Both have one"
    return [
        Finding(
            "note",
            "The chat templates differ",
            f"{who}{'' if not (ours and theirs) else ', and the texts differ'}.",
            "The enhanced model keeps the target's"
            + (", that is none: prompt it in plain text." if not theirs else "; prompt it as you prompt the target."),
        )
    ]


def _template(checkpoint: Checkpoint) -> str | None:
    if (text := checkpoint.text("chat_template.jinja", MAX_TEMPLATE)) is not None:
        return text.decode(errors="replace").strip()
    for file in ("chat_template.json", "tokenizer_config.json"):
        template = _object(checkpoint, file).get("chat_template")
        if isinstance(template, list):  # several, each with a name
            named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict) and _named(t)}
            template = named.get("default")
        if isinstance(template, str):
            return template.strip()
    return None


def _named(template: Mapping[str, Any]) -> bool:
    return isinstance(template.get("name"), str)


def _object(checkpoint: Checkpoint, file: str) -> dict[str, Any]:
    """A small file's content where it is an object; any other shape states nothing."""
    content = checkpoint.json(file)
    return content if isinstance(content, dict) else {}
