"""Whether the donors and the target write text with the same numbers: the map from tokens to ids, special tokens, rows
of the embedding, chat template. From the files alone; no tokenizer is built and no code from a checkpoint is run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reasonvec.weights.checkpoint import Checkpoint
from reasonvec.weights.findings import Finding, enumerated, shown
from reasonvec.weights.modules import kind_of

_OPAQUE = ("tokenizer.model", "vocab.txt", "qwen.tiktoken", "tokenizer.tiktoken", "tiktoken.model", "spiece.model")
_SOURCES = ("tokenizer.json", "vocab.json", "added_tokens.json", *_OPAQUE)
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a checkpoint."""

    source: str
    """The file they are from."""
    ids: Mapping[str, int]
    rules: Mapping[str, Any]
    """How text is cut into tokens, by part: merges, normalizer, pre_tokenizer."""


class _UnreadableError(ValueError):
    """A tokenizer file of a shape that is not known here."""


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
        ours, theirs = read_vocabulary(donor), read_vocabulary(target)
    except _UnreadableError as error:
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
    if (text := donor.text("tokenizer.json")) is not None:
        return text == target.text("tokenizer.json")
    names = [name for name in _SOURCES if donor.text(name) is not None or target.text(name) is not None]
    return bool(names) and all(donor.text(name) == target.text(name) for name in names)


def read_vocabulary(checkpoint: Checkpoint) -> Vocabulary | None:
    """The map from tokens to ids from tokenizer.json, else from vocab.json and added_tokens.json; None without them."""
    if (document := checkpoint.json("tokenizer.json")) is not None:
        where = str(checkpoint.path / "tokenizer.json")
        model = document.get("model") if isinstance(document, dict) else None
        if not isinstance(model, dict):
            raise _UnreadableError(f"{where} has no `model` object")
        ids = _ids(model.get("vocab"), f"{where}: model.vocab")
        ids |= _added(document.get("added_tokens", []), where)
        rules = {"merges": _merges(model.get("merges"))}
        rules |= {part: document.get(part) for part in ("normalizer", "pre_tokenizer")}
        return Vocabulary("tokenizer.json", ids, rules)
    if (vocab := checkpoint.json("vocab.json")) is not None:
        ids = _ids(vocab, str(checkpoint.path / "vocab.json"))
        if (added := checkpoint.json("added_tokens.json")) is not None:
            ids |= _ids(added, str(checkpoint.path / "added_tokens.json"))
        return Vocabulary("vocab.json", ids, {})
    return None


def _ids(vocab: Any, where: str) -> dict[str, int]:
    """BPE, WordPiece and WordLevel keep a map, Unigram a list of [piece, score] in the order of the ids."""
    if isinstance(vocab, list) and all(isinstance(p, list) and p and isinstance(p[0], str) for p in vocab):
        return {piece[0]: index for index, piece in enumerate(vocab)}
    if isinstance(vocab, dict) and all(type(index) is int for index in vocab.values()):
        return dict(vocab)
    raise _UnreadableError(f"{where} is neither a map from tokens to ids nor a list of pieces")


def _added(tokens: Any, where: str) -> dict[str, int]:
    if not isinstance(tokens, list) or not all(
        isinstance(t, dict) and isinstance(t.get("content"), str) and type(t.get("id")) is int for t in tokens
    ):
        raise _UnreadableError(f"{where}: added_tokens is not a list of {{id, content}}")
    return {token["content"]: token["id"] for token in tokens}


def _merges(merges: Any) -> Any:
    """Newer files write pairs where older ones wrote one text with a space."""
    if not isinstance(merges, list):
        return merges
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]


def _token_findings(ours: Vocabulary, theirs: Vocabulary, embeddings_included: bool) -> list[Finding]:
    shared = ours.ids.keys() & theirs.ids.keys()
    moved = sorted((t for t in shared if ours.ids[t] != theirs.ids[t]), key=ours.ids.__getitem__)
    only_ours, only_theirs = ours.ids.keys() - shared, theirs.ids.keys() - shared
    there = {theirs.ids[token]: token for token in only_theirs}
    renamed = {token: there[ours.ids[token]] for token in only_ours if ours.ids[token] in there}
    findings = []
    if moved:
        cases = [f"{shown(t)} is {ours.ids[t]} for the donors and {theirs.ids[t]} for the target" for t in moved]
        findings.append(
            Finding(
                "blocking" if embeddings_included else "warning",
                "Tokens have other ids",
                f"{len(moved)} of {len(shared)} shared tokens have moved: {enumerated(cases, 3)}.",
                "A row of the vector's embedding would be added to another token's row. Leave the embeddings out with "
                "--skip, or use a target with the donors' tokenizer."
                if embeddings_included
                else "The embeddings are left out, so no row goes astray; yet the donors' layers were trained on other "
                "tokens. Expect less of the vector.",
            )
        )
    if renamed:
        ordered = sorted(renamed.items(), key=lambda pair: ours.ids[pair[0]])
        cases = [f"id {ours.ids[a]} is {shown(a)} for the donors and {shown(b)} for the target" for a, b in ordered]
        findings.append(
            Finding(
                "warning",
                "Tokens were renamed",
                f"{len(cases)} ids stand for another token: {enumerated(cases, 3)}.",
                "What the donors learnt of their token goes to the target's. Look whether any of them matters, as a "
                "token that opens a chain of thought would.",
            )
        )
    findings += _lacking(only_ours - renamed.keys(), ours, only_theirs - set(renamed.values()), theirs)
    return findings


def _lacking(only_ours: set[str], ours: Vocabulary, only_theirs: set[str], theirs: Vocabulary) -> list[Finding]:
    findings = []
    for level, tokens, vocabulary, title, advice in (
        (
            "warning",
            only_ours,
            ours,
            "The target lacks tokens of the donors",
            "What the vector does with them has no effect there. If the donors' answers rely on one (a tag around the "
            "reasoning, an end of turn), the target cannot write it.",
        ),
        (
            "note",
            only_theirs,
            theirs,
            "The target has tokens that the donors lack",
            "The donors never saw them; rows for them get padding's delta, or none.",
        ),
    ):
        if tokens:
            names = sorted(tokens, key=vocabulary.ids.__getitem__)
            cases = [f"{shown(token)} ({vocabulary.ids[token]})" for token in names]
            evidence = f"{len(tokens)} tokens of {len(vocabulary.ids)}: {enumerated(cases)}."
            findings.append(Finding("warning" if level == "warning" else "note", title, evidence, advice))
    return findings


def _rule_findings(ours: Vocabulary, theirs: Vocabulary) -> list[Finding]:
    parts = sorted(part for part in ours.rules.keys() & theirs.rules.keys() if not _alike(ours, theirs, part))
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


def _alike(ours: Vocabulary, theirs: Vocabulary, part: str) -> bool:
    try:
        return bool(ours.rules[part] == theirs.rules[part])
    except RecursionError:  # nested beyond what can be compared
        return False


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
    files = {name: (donor.text(name), target.text(name)) for name in _OPAQUE}
    shared = [name for name, (first, second) in files.items() if first is not None and second is not None]
    if differing := [name for name in shared if files[name][0] != files[name][1]]:
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
    if (text := checkpoint.text("chat_template.jinja")) is not None:
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
