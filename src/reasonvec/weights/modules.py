"""What part of a transformer a tensor is, told from its name. For reading only: no arithmetic depends on it, so a
family that is not known here is shown as `other` and works like any."""

_KINDS: dict[str, tuple[str, ...]] = {
    "embedding": (
        "embed_tokens", "embed_in", "embed_out", "embed_positions", "lm_head", "position_embeddings",
        "tok_embeddings", "word_embeddings", "wpe", "wte",
    ),
    "q": ("q", "q_a_proj", "q_b_proj", "q_lin", "q_proj", "query", "wq"),
    "k": ("k", "k_lin", "k_proj", "key", "wk"),
    "v": ("v", "v_lin", "v_proj", "value", "wv"),
    "qkv": ("Wqkv", "c_attn", "qkv", "qkv_proj", "query_key_value", "wqkv"),
    "o": ("o", "o_proj", "out_lin", "out_proj", "wo"),
    "gate": ("gate_proj", "w1"),
    "up": ("c_fc", "dense_h_to_4h", "fc1", "fc_in", "up_proj", "w3"),
    "gate_up": ("gate_up_proj",),
    "down": ("dense_4h_to_h", "down_proj", "fc2", "fc_out", "w2"),
    "router": ("gate", "router"),
}  # fmt: skip
_KIND_OF = {part: kind for kind, parts in _KINDS.items() for part in parts}
_AMBIGUOUS = {"c_proj", "dense"}
_SUFFIXES = ("weight", "bias")

KINDS = (*_KINDS, "norm", "other")
"""Every kind, in the order in which a signal passes them; `other` is whatever no rule knows."""


def kind_of(name: str) -> str:
    """The kind of module that the tensor `name` belongs to, one of `KINDS`.

    The last part of the name that is not `weight` or `bias` decides. `qkv` and `gate_up` are fused projections (GPT-2's
    c_attn, Mixtral's gate_up_proj); `router` chooses experts; lm_head counts as an embedding.
    """
    parts = name.split(".")
    if len(parts) > 1 and parts[-1] in _SUFFIXES:
        parts.pop()
    part = parts[-1].removesuffix("_bias")
    if "norm" in part.lower() or part.startswith("ln_") or part == "ln":
        return "norm"
    if part in _AMBIGUOUS:
        inside = parts[-2] if len(parts) > 1 else ""
        return "o" if "att" in inside else "down" if "mlp" in inside else "other"
    return _KIND_OF.get(part, "other")
