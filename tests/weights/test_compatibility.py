"""`check`: what two directories that do not belong together look like, and models of known ancestry."""

import io
import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.numpy import load_file, save_file
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from reasonvec.errors import CheckpointError, IncompatibleError, UsageError, VectorError
from reasonvec.terminal import check as tables
from reasonvec.weights import apply, check, extract
from reasonvec.weights.checkpoint import Checkpoint, open_checkpoint
from reasonvec.weights.compatibility import CheckReport, donor_findings
from reasonvec.weights.configuration import configuration_findings
from reasonvec.weights.findings import Finding
from reasonvec.weights.lineage import Distance, lineage_findings, measure_lineage
from reasonvec.weights.tokenizer import tokenizer_findings
from reasonvec.weights.vector import SAMPLE, open_vector

BF16 = np.dtype(ml_dtypes.bfloat16)
CONFIG = {
    "model_type": "qwen2", "hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu",
    "num_hidden_layers": 2, "intermediate_size": 32, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "vocab_size": 24,
    "tie_word_embeddings": True, "sliding_window": None, "torch_dtype": "bfloat16", "eos_token_id": 2,
}  # fmt: skip
TOKENS = {f"t{i}": i for i in range(20)}


def tokenizer(tokens: Mapping[str, int], **model: Any) -> dict[str, Any]:
    added = [{"id": max(tokens.values()) + 1, "content": "<|end|>", "special": True}]
    return {"model": {"type": "BPE", "vocab": dict(tokens), "merges": ["t 1"], **model}, "added_tokens": added}


def tensors(seed: int = 0, dtype: Any = BF16, rows: int = 24) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    found = {"model.embed_tokens.weight": rng.standard_normal((rows, 16))}
    for layer in range(2):
        found[f"model.layers.{layer}.self_attn.q_proj.weight"] = rng.standard_normal((16, 16))
        found[f"model.layers.{layer}.input_layernorm.weight"] = np.ones(16)
    return {name: (values * 0.02).astype(dtype) for name, values in found.items()}


def write(path: Path, weights: Mapping[str, Any], config: Any = CONFIG, **files: Any) -> Path:
    path.mkdir()
    save_file(dict(weights), path / "model.safetensors")
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    for name, content in files.items():
        suffix = ".jinja" if name == "chat_template" else ".json"
        (path / f"{name}{suffix}").write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Path]:
    """Make a checkpoint that holds only small files."""

    def make(name: str, config: Any = CONFIG, **files: Any) -> Path:
        return write(tmp_path / name, tensors(), config, **files)

    return make


def opened(path: Path) -> Checkpoint:
    return Checkpoint(path.name, path.resolve(), None, {})


def findings_between(donor: Path, target: Path, embeddings: bool = True) -> list[Finding]:
    return donor_findings(opened(donor), opened(target), embeddings)


def configurations(donor: Path, target: Path) -> list[Finding]:
    return configuration_findings(opened(donor), opened(target))


def tokenizers(donor: Path, target: Path, embeddings: bool = True) -> list[Finding]:
    return tokenizer_findings(opened(donor), opened(target), embeddings)


def titles(findings: Any, level: str | None = None) -> list[str]:
    return [f.title for f in findings if level in (None, f.level)]


def with_fields(**fields: Any) -> dict[str, Any]:
    return {**CONFIG, **fields}


def vector_of(tmp_path: Path, config: Any = CONFIG, dtype: Any = BF16, **files: Any) -> Path:
    base = tensors(0, dtype)
    tuned = {n: (v.astype(np.float64) * 1.01 + 1e-4).astype(dtype) for n, v in base.items()}
    write(tmp_path / "base", base, config, **files)
    write(tmp_path / "tuned", tuned, config, **files)
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector")
    return tmp_path / "vector"


# configuration


def test_equal_small_files_give_no_finding(small: Callable[..., Path]) -> None:
    files = {"tokenizer": tokenizer(TOKENS), "tokenizer_config": {"eos_token": "<|end|>"}, "chat_template": "x"}
    assert findings_between(small("a", **files), small("b", **files)) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "llama"),
        ("num_attention_heads", 8),
        ("num_key_value_heads", 4),
        ("hidden_act", "gelu"),
        ("hidden_size", 32),
    ],
)
def test_a_field_that_makes_the_numbers_another_function_blocks(
    small: Callable[..., Path], field: str, value: Any
) -> None:
    found = configurations(small("a"), small("b", with_fields(**{field: value})))
    assert [(f.level, f.title) for f in found] == [("blocking", "The architectures differ")]
    assert field in found[0].evidence and str(value) in found[0].evidence


def test_both_head_sizes_stated_and_different_block(small: Callable[..., Path]) -> None:
    found = configurations(small("a", with_fields(head_dim=4)), small("b", with_fields(head_dim=8)))
    assert titles(found, "blocking") == ["The architectures differ"]


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        ({"rope_theta": 10000.0}, "Rotary positions differ"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "Rotary positions differ"),
        ({"rms_norm_eps": 1e-5}, "The norms' epsilon differs"),
        ({"sliding_window": 4096}, "Attention windows differ"),
        ({"tie_word_embeddings": False}, "Tied embeddings differ"),
    ],
)
def test_a_field_that_shifts_the_meaning_warns_and_does_not_block(
    small: Callable[..., Path], fields: dict[str, Any], title: str
) -> None:
    found = configurations(small("a"), small("b", with_fields(**fields)))
    assert [(f.level, f.title) for f in found] == [("warning", title)]


@pytest.mark.parametrize(
    ("donors", "target", "title"),
    [
        ({"attn_logit_softcapping": 50.0}, {"attn_logit_softcapping": None}, "Scales or caps differ"),
        ({"num_experts_per_tok": 2}, {"num_experts_per_tok": 4}, "Routing to experts differs"),
        ({"norm_topk_prob": True}, {"norm_topk_prob": False}, "Routing to experts differs"),
        ({"layer_types": ["full_attention"] * 2}, {"layer_types": ["full_attention", "sliding_attention"]},
         "Attention windows differ"),
    ],
)  # fmt: skip
def test_fields_both_files_state_differently_warn(
    small: Callable[..., Path], donors: dict[str, Any], target: dict[str, Any], title: str
) -> None:
    found = configurations(small("a", with_fields(**donors)), small("b", with_fields(**target)))
    assert [(f.level, f.title) for f in found] == [("warning", title)]


@pytest.mark.parametrize(
    "fields",
    [
        {"torch_dtype": "float32"},
        {"dtype": "float32"},
        {"transformers_version": "4.1"},
        {"use_cache": False},
        {"_name_or_path": "elsewhere"},
        {"attention_dropout": 0.1},
        {"initializer_range": 0.5},
        {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 7},
        {"layer_types": ["full_attention", "full_attention"]},
        {"rope_scaling": None},
    ],
)
def test_fields_that_change_no_weight_are_passed_over(small: Callable[..., Path], fields: dict[str, Any]) -> None:
    assert configurations(small("a"), small("b", with_fields(**fields))) == []


def test_the_spellings_of_two_transformers_versions_are_one(small: Callable[..., Path]) -> None:
    new = {k: v for k, v in CONFIG.items() if k not in ("rope_theta", "torch_dtype")}
    new |= {"rope_parameters": {"rope_theta": 1000000, "rope_type": "default"}, "dtype": "bfloat16"}
    assert configurations(small("a"), small("b", new)) == []
    old_yarn = with_fields(rope_scaling={"type": "yarn", "factor": 4.0})
    new_yarn = {**new, "rope_parameters": {"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0}}
    assert configurations(small("c", old_yarn), small("d", new_yarn)) == []
    other = {**new, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}
    assert titles(configurations(small("e"), small("f", other))) == ["Rotary positions differ"]


def test_rotation_by_layer_type_is_compared_and_the_older_spelling_is_one(small: Callable[..., Path]) -> None:
    plain = {k: v for k, v in CONFIG.items() if k != "rope_theta"}
    old = {**plain, "rope_theta": 1e6, "rope_local_base_freq": 1e4}
    layered = {"full_attention": {"rope_theta": 1e6, "rope_type": "default"},
               "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}}  # fmt: skip
    new = {**plain, "rope_parameters": layered}
    assert configurations(small("a", old), small("b", new)) == []
    layered["sliding_attention"]["rope_theta"] = 5e4
    (found,) = configurations(small("c", old), small("d", {**plain, "rope_parameters": layered}))
    assert "rope_parameters.sliding_attention.rope_theta" in found.evidence


def test_fields_of_a_sub_model_are_compared(small: Callable[..., Path]) -> None:
    nested = {"model_type": "both", "text_config": CONFIG}
    other = {"model_type": "both", "text_config": with_fields(num_attention_heads=2, rope_theta=1.0)}
    found = configurations(small("a", nested), small("b", other))
    assert [f.level for f in found] == ["blocking", "warning"]
    assert "text_config.num_attention_heads is 4 for the donors and 2 for the target" in found[0].evidence


def test_an_unknown_field_and_one_that_only_one_file_states_are_notes(small: Callable[..., Path]) -> None:
    found = configurations(small("a", with_fields(zebra=1)), small("b", with_fields(zebra=2, head_dim=4)))
    assert [(f.level, f.title) for f in found] == [
        ("note", "Other fields differ"),
        ("note", "Fields that only one configuration states"),
    ]


def test_a_missing_configuration_is_a_note(small: Callable[..., Path]) -> None:
    found = configurations(small("a", None), small("b"))
    assert [(f.level, f.title) for f in found] == [("note", "A configuration is missing")]


@pytest.mark.parametrize(
    "config",
    [
        {"rope_scaling": 3, "rope_parameters": [1], "layer_types": "x", "text_config": 7, "vocab_size": "many"},
        {"rope_parameters": {"a": {"b": {"c": 1}}}, "hidden_act": ["silu"], "sliding_window": {}},
        {"a": float("nan"), "": None, "x.y": {"z": []}, "\x1b[31m": "\x1b[0m"},
    ],
)
def test_odd_shapes_in_a_configuration_are_findings_and_never_a_crash(
    small: Callable[..., Path], config: dict[str, Any]
) -> None:
    found = configurations(small("a"), small("b", config))
    assert all("\x1b" not in f.evidence for f in found)


def test_a_configuration_nested_without_end_is_refused(small: Callable[..., Path], tmp_path: Path) -> None:
    path = small("b")
    (path / "config.json").write_text('{"a":' + '{"a":' * 200 + "1" + "}" * 201)
    with pytest.raises(CheckpointError, match="nested more than 64 levels"):
        configurations(small("a"), path)


# tokenizer


def test_moved_tokens_block_only_where_embeddings_are_added(small: Callable[..., Path]) -> None:
    swapped = {**TOKENS, "t3": 4, "t4": 3}
    a, b = small("a", tokenizer=tokenizer(TOKENS)), small("b", tokenizer=tokenizer(swapped))
    (with_embeddings,), (without,) = tokenizers(a, b, True), tokenizers(a, b, False)
    assert (with_embeddings.level, without.level) == ("blocking", "warning")
    assert with_embeddings.evidence.startswith("2 of 21 shared tokens have moved: 't3' is 3 for the donors and 4")


def test_renamed_lacking_and_additional_tokens(small: Callable[..., Path]) -> None:
    renamed = {("new" if token == "t5" else token): i for token, i in TOKENS.items()}
    (found,) = tokenizers(small("a", tokenizer=tokenizer(TOKENS)), small("b", tokenizer=tokenizer(renamed)), False)
    assert (found.level, found.title) == ("warning", "Tokens were renamed")
    assert "id 5 is 't5' for the donors and 'new' for the target" in found.evidence
    more = tokenizer(TOKENS)
    more["added_tokens"].append({"id": 21, "content": "<think>"})
    plain = tokenizer(TOKENS)
    (lacking,) = tokenizers(small("c", tokenizer=more), small("d", tokenizer=plain), False)
    assert (lacking.level, lacking.title) == ("warning", "The target lacks tokens of the donors")
    (extra,) = tokenizers(small("e", tokenizer=plain), small("f", tokenizer=more), False)
    assert (extra.level, extra.title) == ("note", "The target has tokens that the donors lack")
    assert "'<think>' (21)" in extra.evidence


def test_unigram_lists_and_vocab_files_are_read(small: Callable[..., Path]) -> None:
    pieces = [[token, -1.0] for token in TOKENS]
    unigram = {"model": {"type": "Unigram", "vocab": pieces}, "added_tokens": []}
    other = {"model": {"type": "Unigram", "vocab": pieces[::-1]}, "added_tokens": []}
    (found,) = tokenizers(small("a", tokenizer=unigram), small("b", tokenizer=other))
    assert found.level == "blocking" and found.evidence.startswith("20 of 20")
    old = small("c", vocab=TOKENS, added_tokens={"<|end|>": 20})
    assert tokenizers(old, small("d", vocab={**TOKENS, "<|end|>": 20})) == []
    moved = tokenizers(old, small("e", vocab={**TOKENS, "<|end|>": 21}))[0]
    assert "'<|end|>' is 20 for the donors and 21 for the target" in moved.evidence


def test_merges_written_as_text_or_as_pairs_are_one_and_other_merges_warn(small: Callable[..., Path]) -> None:
    a = small("a", tokenizer=tokenizer(TOKENS))
    assert tokenizers(a, small("b", tokenizer=tokenizer(TOKENS, merges=[["t", "1"]]))) == []
    (found,) = tokenizers(a, small("c", tokenizer=tokenizer(TOKENS, merges=["t 2"])))
    assert (found.level, found.evidence) == ("warning", "tokenizer.json differs in merges.")


@pytest.mark.parametrize(
    "content",
    [[], 3, {"model": 1}, {"model": {}}, {"model": {"vocab": {"a": "b"}}}, {"model": {"vocab": {"a": 1.5}}},
     {"model": {"vocab": [1]}}, {"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": "x"}]},
     {"model": {"vocab": {"a": 0}}, "added_tokens": 7}],
)  # fmt: skip
def test_a_tokenizer_of_unknown_shape_is_a_warning(small: Callable[..., Path], content: Any) -> None:
    found = tokenizers(small("a", tokenizer=tokenizer(TOKENS)), small("b", tokenizer=content))
    assert [(f.level, f.title) for f in found] == [("warning", "A tokenizer could not be compared")]


def test_a_tokenizer_that_is_not_json_is_an_error_that_names_the_file(small: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match=r"b/tokenizer\.json is not JSON"):
        tokenizers(small("a", tokenizer=tokenizer(TOKENS)), small("b", tokenizer="{"))


def test_equal_tokenizer_bytes_are_not_parsed(small: Callable[..., Path]) -> None:
    assert tokenizers(small("a", tokenizer="{"), small("b", tokenizer="{")) == []


def test_special_tokens_and_chat_template(small: Callable[..., Path]) -> None:
    ours = {"eos_token": "<|end|>", "pad_token": {"content": "<pad>"}, "chat_template": "A"}
    theirs = {"eos_token": "</s>", "pad_token": "<pad>", "chat_template": [{"name": "default", "template": "B"}]}
    a = small("a", tokenizer_config=ours)
    found = tokenizers(a, small("b", with_fields(eos_token_id=5), tokenizer_config=theirs))
    found = [f for f in found if "could not be compared" not in f.title]
    assert [(f.level, f.title) for f in found] == [
        ("warning", "Special tokens differ"),
        ("note", "The chat templates differ"),
    ]
    assert "eos_token is '<|end|>' for the donors and '</s>' for the target" in found[0].evidence
    assert "eos_token_id in config.json is 2 for the donors and 5 for the target" in found[0].evidence
    assert "pad_token" not in found[0].evidence
    jinja = tokenizers(a, small("c", tokenizer_config={"eos_token": "<|end|>"}, chat_template="A\n"))
    assert "The chat templates differ" not in titles(jinja)


def test_padded_rows_of_the_embedding(small: Callable[..., Path]) -> None:
    a, text = small("a", tokenizer=tokenizer(TOKENS)), tokenizer(TOKENS)
    (rows,) = tokenizers(a, small("b", with_fields(vocab_size=32), tokenizer=text))
    assert (rows.level, rows.title) == ("note", "The embeddings have another number of rows")
    assert "24 rows for ids up to 20 (donors); 32 rows for ids up to 20 (target). The tokens are the same" in (
        rows.evidence
    )
    found = tokenizers(a, small("c", with_fields(vocab_size=10), tokenizer=text))
    assert "The target has tokens without a row" in titles(found, "warning")


# check as a whole


def test_the_base_donor_itself_fits_without_a_warning(tmp_path: Path) -> None:
    vector = vector_of(tmp_path, tokenizer=tokenizer(TOKENS))
    report = check(vector=vector, target=tmp_path / "base")
    assert report.fits and titles(report.findings) == ["Same lineage"]
    assert report.lineage and report.lineage.overall.relative == 0
    json.dumps(report.to_json(), allow_nan=False)


def test_every_misfit_is_reported_at_once_with_the_small_files(tmp_path: Path) -> None:
    vector = vector_of(tmp_path, tokenizer=tokenizer(TOKENS))
    weights = tensors()
    del weights["model.layers.0.self_attn.q_proj.weight"]
    weights["model.layers.1.self_attn.q_proj.weight"] = np.zeros((8, 16), BF16)
    weights["score.weight"] = np.zeros((2, 16), BF16)
    weights["model.layers.0.input_layernorm.weight"] = np.zeros(16, np.int32)
    config = with_fields(num_attention_heads=2, rope_theta=1e4)
    target = write(tmp_path / "target", weights, config, tokenizer=tokenizer({**TOKENS, "t0": 1, "t1": 0}))
    report = check(vector=vector, target=target)
    assert not report.fits
    assert titles(report.findings, "blocking") == [
        "The target lacks tensors of the vector",
        "The target has tensors that the vector lacks",
        "Tensors have another shape",
        "Tensors have a dtype that cannot be added to",
        "The architectures differ",
        "Tokens have other ids",
    ]
    assert "Rotary positions differ" in titles(report.findings, "warning")
    assert "shape (16, 16) in the vector, (8, 16) in the target" in report.findings[2].evidence
    with pytest.raises(IncompatibleError):
        apply(vectors=[(vector, 1.0)], target=target, out=tmp_path / "out")


def test_what_is_skipped_no_longer_counts_and_check_agrees_with_apply(tmp_path: Path) -> None:
    vector = vector_of(tmp_path, tokenizer=tokenizer(TOKENS))
    longer = tokenizer({**TOKENS, "t0": 1, "t1": 0})
    target = write(tmp_path / "target", tensors(0, rows=32), with_fields(vocab_size=32), tokenizer=longer)
    skip = ["*embed_tokens*"]
    assert not check(vector=vector, target=target).fits
    report = check(vector=vector, target=target, skip=skip)
    assert report.fits and "Tokens have other ids" in titles(report.findings, "warning")
    from reasonvec.weights import Options

    apply(vectors=[(vector, 1.0)], target=target, out=tmp_path / "out", options=Options(skip=tuple(skip)))
    with pytest.raises(UsageError, match="matches none"):
        check(vector=vector, target=target, skip=["nothing*"])


def test_plain_tensors_without_any_small_file_are_usable(tmp_path: Path) -> None:
    vector = vector_of(tmp_path, config=None)
    report = check(vector=vector, target=write(tmp_path / "target", tensors(), None))
    assert report.fits and not titles(report.findings, "warning")
    assert {"A configuration is missing", "The tokenizers could not be compared"} <= set(titles(report.findings))


def test_a_coarser_target_is_a_warning_and_a_finer_one_a_note(tmp_path: Path) -> None:
    vector = vector_of(tmp_path, dtype=np.dtype(np.float32))
    coarse = write(tmp_path / "coarse", tensors(0, BF16))
    assert "The target is bfloat16, the donors are float32" in titles(
        check(vector=vector, target=coarse).findings, "warning"
    )
    (tmp_path / "x").mkdir()
    fine = vector_of(tmp_path / "x", dtype=BF16)
    report = check(vector=fine, target=write(tmp_path / "fine", tensors(0, np.dtype(np.float32))))
    assert "The target is float32" in titles(report.findings, "note") and not titles(report.findings, "warning")


def test_an_empty_vector_is_a_warning(tmp_path: Path) -> None:
    write(tmp_path / "a", tensors())
    write(tmp_path / "b", tensors())
    extract(tuned=tmp_path / "a", base=tmp_path / "b", out=tmp_path / "v")
    assert "Nothing would change" in titles(check(vector=tmp_path / "v", target=tmp_path / "a").findings, "warning")


# lineage, on models of known ancestry


def qwen2(seed: int) -> Any:
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(
        Qwen2Config(vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                    num_key_value_heads=2, tie_word_embeddings=True)
    )  # fmt: skip


def gemma2(seed: int) -> Any:
    torch.manual_seed(seed)
    return Gemma2ForCausalLM(
        Gemma2Config(vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, head_dim=16)
    )  # fmt: skip


def gpt2(seed: int) -> Any:
    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(vocab_size=128, n_embd=64, n_layer=2, n_head=4, n_positions=64))


def moved(model: Any, size: float, seed: int) -> Any:
    """A copy in which each tensor has moved at random by `size` times its norm."""
    generator, copy = torch.Generator().manual_seed(seed), deepcopy(model)
    with torch.no_grad():
        for weight in copy.parameters():
            step = torch.randn(weight.shape, generator=generator)
            weight += step * (size * weight.norm() / step.norm())
    return copy


def saved(model: Any, path: Path) -> Path:
    model.to(torch.bfloat16).save_pretrained(path)
    return path


def lineage_report(tmp_path: Path, base: Any, target: Any) -> CheckReport:
    saved(moved(base, 0.01, 1), tmp_path / "tuned")
    saved(deepcopy(base), tmp_path / "base")
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector")
    return check(vector=tmp_path / "vector", target=saved(target, tmp_path / "target"))


def exact_distance(tmp_path: Path) -> tuple[float, float]:
    """Over all entries of all matrices, in float64."""
    base, target = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "target"))
    matrices = [name for name in base if base[name].ndim > 1]
    b, t = (np.concatenate([w[n].astype(np.float64).ravel() for n in matrices]) for w in (base, target))
    return float(np.linalg.norm(t - b) / np.linalg.norm(b)), float(b @ t / np.linalg.norm(b) / np.linalg.norm(t))


@pytest.mark.parametrize("family", [qwen2, gemma2, gpt2])
@pytest.mark.parametrize(
    ("size", "verdict", "title", "level"),
    [
        (0.0, "same lineage", "Same lineage", "note"),
        (0.02, "same lineage", "Same lineage", "note"),
        (0.2, "same lineage", "Same lineage", "note"),
        (1.0, "probably not", "Probably not of the donors' lineage", "warning"),
        (None, "unrelated", "Unrelated to the donors", "warning"),
    ],
)
def test_the_verdict_on_models_of_known_ancestry(
    tmp_path: Path, family: Callable[[int], Any], size: float | None, verdict: str, title: str, level: str
) -> None:
    base = family(0)
    report = lineage_report(tmp_path, base, family(1) if size is None else moved(base, size, 2))
    lineage = report.lineage
    assert lineage and lineage.overall.verdict == verdict and report.fits
    assert {distance.verdict for distance in lineage.layers.values()} == {verdict}
    assert title in titles(report.findings, level)
    relative, cosine = exact_distance(tmp_path)
    assert lineage.overall.relative == pytest.approx(relative, rel=0.05, abs=1e-6)
    assert lineage.overall.cosine == pytest.approx(cosine, abs=0.03)


def test_norms_of_ones_do_not_make_strangers_relatives(tmp_path: Path) -> None:
    def weights(seed: int) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        table = np.tile(np.log(np.arange(1, 17)), (64, 1))
        return {
            "layers.0.mixer.weight": rng.standard_normal((64, 64)).astype(np.float32) * np.float32(0.02),
            "layers.0.A_log": table.astype(np.float32),  # alike in every state-space model
            "layers.0.q_norm.weight": np.ones((8, 64), np.float32),
            "layers.0.norm.weight": np.ones(4096, np.float32),
        }

    base = weights(0)
    write(tmp_path / "base", base)
    write(tmp_path / "tuned", {name: values * np.float32(1.01) for name, values in base.items()})
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector")
    report = check(vector=tmp_path / "vector", target=write(tmp_path / "target", weights(1)))
    assert report.lineage and report.lineage.overall.verdict == "unrelated"
    assert (report.lineage.tensors, report.lineage.left_out) == (1, 2)


def test_a_layer_of_other_descent_is_named(tmp_path: Path) -> None:
    base, stranger = qwen2(0), qwen2(1)
    target = deepcopy(base)
    target.model.layers[1] = deepcopy(stranger.model.layers[1])
    report = lineage_report(tmp_path, base, target)
    assert report.lineage and report.lineage.layers["1"].verdict == "unrelated"
    assert report.lineage.layers["0"].verdict == report.lineage.layers["2"].verdict == "same lineage"


def test_scaled_weights_are_seen_though_their_direction_is_the_same() -> None:
    assert Distance(0.0, 1.0, 9).verdict == "same lineage"
    assert Distance(0.8, 1.0, 9).verdict == "probably not"
    assert Distance(None, None, 9).verdict is None


def test_a_damaged_sample_is_an_error(tmp_path: Path) -> None:
    vector = vector_of(tmp_path)
    data = bytearray((vector / SAMPLE).read_bytes())
    data[-1] ^= 1
    (vector / SAMPLE).write_bytes(data)
    with pytest.raises(VectorError, match="does not match its checksum"):
        check(vector=vector, target=tmp_path / "base")


def test_a_vector_that_keeps_no_sample_gives_a_note(tmp_path: Path) -> None:
    vector = open_vector(vector_of(tmp_path))
    (vector.path / SAMPLE).unlink()
    target = open_checkpoint(tmp_path / "base")
    assert measure_lineage(vector, target) is None
    assert [f.level for f in lineage_findings(vector, None)] == ["note"]


def test_nan_in_the_target_is_a_warning(tmp_path: Path) -> None:
    vector, weights = vector_of(tmp_path), tensors()
    weights["model.layers.0.self_attn.q_proj.weight"][0, 0] = np.nan
    report = check(vector=vector, target=write(tmp_path / "target", weights))
    assert "The target holds NaN or infinity" in titles(report.findings, "warning")
    json.dumps(report.to_json(), allow_nan=False)


def test_the_report_is_readable_at_80_columns(tmp_path: Path) -> None:
    vector = vector_of(tmp_path)
    target = write(tmp_path / "target", tensors(3), with_fields(**{"rope_theta": 1.0, "[bold]\x1b[2J": 1}))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(tables.check_report(check(vector=vector, target=target)))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "[bold]" in text and "\x1b" not in text
    assert "Unrelated to the donors" in text and "Fits, with" in text
