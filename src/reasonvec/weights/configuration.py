"""What two configurations say about the meaning of weights: the same numbers are another function if heads are cut
elsewhere, positions turn at another speed or another activation follows.

There is no table of architectures. Every field of both files is compared, but for those listed here that change nothing
about what a weight means; what kind of difference it is follows from the field's own name.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from reasonvec.errors import CheckpointError
from reasonvec.weights.checkpoint import Checkpoint
from reasonvec.weights.findings import Finding, Level, enumerated, shown

_IRRELEVANT = re.compile(
    # names, versions, how the file is stored
    r"_name_or_path|name_or_path|architectures|transformers_version|unsloth_\w+|torch_dtype|dtype|auto_map|"
    r"_?attn_implementation|_commit_hash|tokenizer_class|prefix|id2label|label2id|num_labels|problem_type|"
    r"finetuning_task|task_specific_params|is_decoder|is_encoder_decoder|return_dict|output_\w+|torchscript|tf_\w+|"
    # how a model is run or was trained
    r"use_cache|use_bfloat16|pretraining_tp|gradient_checkpointing|chunk_size_feed_forward|initializer_\w+|"
    r"\w*dropout\w*|\w*pdrop|\w*aux_loss\w*|router_z_loss\w*|router_jitter_noise|summary_\w+|pruned_heads|"
    # generation defaults that older versions kept here
    r"do_sample|temperature|top_k|top_p|typical_p|num_beams\w*|max_length|min_length|max_new_tokens|early_stopping|"
    r"repetition_penalty|length_penalty|no_repeat_ngram_size|encoder_no_repeat_ngram_size|bad_words_ids|"
    r"num_return_sequences|diversity_penalty|suppress_tokens|begin_suppress_tokens|exponential_decay_length_penalty|"
    r"remove_invalid_values|forced_\w+_token_id|"
    # compared together with the tokenizer
    r"\w+_token_ids?|vocab_size"
)


@dataclass(frozen=True)
class _Subject:
    """Fields that have one meaning, and what a difference in them calls for."""

    level: Level
    title: str
    fields: re.Pattern[str]
    advice: str


def _subject(level: Level, title: str, fields: str, advice: str) -> _Subject:
    return _Subject(level, title, re.compile(fields), advice)


# the first that matches a field's whole name takes it
_SUBJECTS = (
    _subject(
        "blocking",
        "The architectures differ",
        r"model_type|hidden_size|n_embd|d_model|embedding_size|num_attention_heads|n_heads?|num_heads|"
        r"num_key_value_heads|num_kv_heads|multi_query|head_dim|d_kv|(qk_|v_)\w*head_dim|hidden_act|hidden_activation|"
        r"activation|activation_function|position_embedding_type|parallel_attn|alibi|use_parallel_residual",
        "The same numbers mean another function there, whatever alpha is. Use a target of the donors' architecture.",
    ),
    _subject(
        "warning",
        "Rotary positions differ",
        r"(\w+\.)*(rope|rotary|partial_rotary|mrope)\w*(\..*)?",
        "Attention weights of the donors were trained for other rotation speeds. A longer context made by raising "
        "theta may still take the vector; measure several alphas.",
    ),
    _subject(
        "warning",
        "The norms' epsilon differs",
        r"\w*(norm|layernorm)\w*eps\w*|norm_eps",
        "A small difference rarely matters; that the files disagree may mean that one of them was converted wrongly.",
    ),
    _subject(
        "warning",
        "Attention windows differ",
        r"\w*sliding_window\w*|window_size|layer_types|attention_chunk_size|max_window_layers|\w*attention_layers",
        "Some layers see other distances than the donors' did. Expect the vector to help less on long inputs.",
    ),
    _subject(
        "warning",
        "Scales or caps differ",
        r"\w*softcap\w*|\w*scal(e|ing)\w*|\w*multiplier|query_pre_attn_scalar|logit_scale|mup_\w+|clip_qkv",
        "Activations have another size than in the donors, so the delta weighs differently. Measure several alphas.",
    ),
    _subject(
        "warning",
        "Tied embeddings differ",
        r"tie_word_embeddings|tie_\w+",
        "Where one tensor serves as input and output embedding it takes one delta for both. If in doubt leave the "
        "embeddings out with --skip.",
    ),
    _subject(
        "warning",
        "Routing to experts differs",
        r"\w*(experts_per_tok|topk|top_k|router|routed_scaling|scoring_func|n_group|moe)\w*",
        "Other experts answer a token than in the donors. Give the target the donors' routing, or expect less.",
    ),
    _subject(
        "note",
        "Sizes that the tensors show differ",
        r"num_hidden_layers|n_layers?|num_layers|\w*intermediate_size|n_inner|d_ff|ffn_dim|\w*experts|\w*bias",
        "The comparison of names and shapes decides; this only says where a difference comes from.",
    ),
)
_OTHER = _Subject(
    "note", "Other fields differ", re.compile(""), "Not known to change what a weight means; have a look."
)


def configuration_findings(donor: Checkpoint, target: Checkpoint) -> list[Finding]:
    """Compare the two config.json field by field, one finding for each subject that differs.

    A field that only one file states is a note: the other file leaves a default to the library. Raises CheckpointError
    for a config.json that is not an object.
    """
    if lacking := [checkpoint.location for checkpoint in (donor, target) if not checkpoint.config]:
        return [
            Finding(
                "note",
                "A configuration is missing",
                f"There is no config.json in {' nor in '.join(lacking)}.",
                "Only names, shapes and dtypes could be compared. See yourself that both are one architecture.",
            )
        ]
    ours, theirs = _fields(donor), _fields(target)
    differing: dict[_Subject, list[str]] = {}
    one_sided: list[str] = []
    for field in sorted(ours.keys() | theirs.keys()):
        first, second = ours.get(field, _Absent), theirs.get(field, _Absent)
        if _IRRELEVANT.fullmatch(field.rpartition(".")[2][:_LONGEST_FIELD]) or _same(first, second):
            continue
        if (first is _Absent or second is _Absent) and not _is_switch(field):
            one_sided.append(field)
            continue
        differing.setdefault(_subject_of(field), []).append(field)

    def both(field: str) -> str:
        first, second = (_stated(fields.get(field, _Absent)) for fields in (ours, theirs))
        return f"{_name(field)} is {first} for the donors and {second} for the target"

    def one(field: str) -> str:
        holder, value = ("donors", ours[field]) if field in ours else ("target", theirs[field])
        return f"{_name(field)} {shown(value)} ({holder})"

    findings = [
        Finding(subject.level, subject.title, enumerated(differing[subject], told=both) + ".", subject.advice)
        for subject in (*_SUBJECTS, _OTHER)
        if subject in differing
    ]
    if one_sided:
        findings.append(
            Finding(
                "note",
                "Fields that only one configuration states",
                enumerated(one_sided, told=one) + ".",
                "Versions of transformers write different sets of fields; a default is probably meant.",
            )
        )
    return findings


class _Absent:
    """Stands for a field that a file does not have."""


def _same(first: Any, second: Any) -> bool:
    """Whether two values agree; not to state a field and to state null are one."""
    return bool(first == second) or all(value is None or value is _Absent for value in (first, second))


def _stated(value: Any) -> str:
    return "not set" if value is _Absent else shown(value)


def _name(field: str) -> str:
    return field if field.isprintable() and len(field) <= 80 else shown(field)


_LONGEST_FIELD = 80
_MOST_LETTERS = 8 << 20


def _subject_of(field: str) -> _Subject:
    last = field.rpartition(".")[2]
    if len(field) > _LONGEST_FIELD:
        return _OTHER  # no field of a model has such a name, and matching it could take for ever
    for subject in _SUBJECTS:
        if subject.fields.fullmatch(last) or subject.fields.fullmatch(field):
            return subject
    return _OTHER


def _is_switch(field: str) -> bool:
    """Whether leaving the field out means "off", so that a value on one side only is a difference."""
    head, _, last = field.rpartition(".")
    return "rope_parameters" in head.split(".") and last not in ("rope_theta", "partial_rotary_factor")


def _fields(checkpoint: Checkpoint) -> dict[str, Any]:
    """The fields of a configuration by their whole names, which may be far longer than the file."""
    fields, letters = dict[str, Any](), 0
    for name, value in _flatten(checkpoint.config):
        fields[name] = value
        letters += len(name)
        if letters > _MOST_LETTERS:
            raise CheckpointError(
                f"{checkpoint.path / 'config.json'} nests so many fields so deeply that their names have more than "
                f"{_MOST_LETTERS} letters. No configuration does; fetch it again."
            )
    return fields


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields with nested names joined by dots, those of sub-models (`text_config`) among them."""
    is_model = not prefix or prefix.endswith("_config.")
    for key, value in (_current_spelling(config) if is_model else config).items():
        name = str(key)  # of a loaded model's configuration, numbers of labels are numbers
        if len(name) > _LONGEST_FIELD:
            name = f"{name[:_LONGEST_FIELD]}~{crc32(name.encode(errors='surrogatepass')):08x}"
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        elif value != {}:
            yield f"{prefix}{name}", value


def _current_spelling(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as transformers 5 writes them; null where one field says that another does not count."""
    current = dict(config)
    if current.get("hidden_activation"):  # Gemma: where both are set this one counts
        current["hidden_act"] = current.pop("hidden_activation")
    if current.get("use_sliding_window") is False or current.get("sliding_window", 0) is None:
        current["sliding_window"] = None
        current.pop("use_sliding_window", None)
        current.pop("max_window_layers", None)
    types = current.get("layer_types")
    if isinstance(types, list) and all(kind == "full_attention" for kind in types):
        current["layer_types"] = None
    return _with_rope_parameters(current)


def _with_rope_parameters(config: dict[str, Any]) -> dict[str, Any]:
    """Older versions wrote rope_theta, rope_scaling and partial_rotary_factor beside one another; 5 writes them into
    `rope_parameters`, for models that mix windows once for each type of layer."""
    theta, scaling = config.pop("rope_theta", None), config.pop("rope_scaling", None)
    partial, local = config.pop("partial_rotary_factor", None), config.pop("rope_local_base_freq", None)
    written = config.pop("rope_parameters", None)
    rope = {
        **({"rope_theta": theta} if theta is not None else {}),
        **({"partial_rotary_factor": partial} if partial is not None else {}),
        **(scaling if isinstance(scaling, dict) else {}),
        **(written if isinstance(written, dict) else {}),
    }
    if any(isinstance(value, dict) for value in rope.values()):
        config["rope_parameters"] = {k: _rope(v) if isinstance(v, dict) else v for k, v in rope.items()}
    elif local is not None:
        config["rope_parameters"] = {"full_attention": _rope(rope), "sliding_attention": {"rope_theta": local}}
    else:
        config["rope_parameters"] = _rope(rope)
    return config


def _rope(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Rotation settings without those that say "as always"."""
    rope = {name: value for name, value in parameters.items() if name not in ("type", "rope_type")}
    kind = parameters.get("rope_type", parameters.get("type"))
    return rope if kind in (None, "default") else {**rope, "rope_type": kind}
