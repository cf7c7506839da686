"""What GGUF calls a LLaMA's tensors, and the order in which it keeps the rows of q and k.

RoPE rotates pairs of dimensions. transformers pairs dimension i of a head with i + K/2; llama.cpp pairs 2i with 2i + 1.
The same model therefore has the rows of q_proj and k_proj in another order, head by head:

    transformers  a0 a1 a2 ... b0 b1 b2 ...         llama.cpp  a0 b0 a1 b1 a2 b2 ...

Not here: reading or writing (gguf.py). Tests: tests/formats/test_gguf.py.
"""

import re

import numpy as np

from nano_llama.core.names import (
    DOWN_PROJ,
    EMBED,
    GATE_PROJ,
    INPUT_NORM,
    K_PROJ,
    LM_HEAD,
    NORM,
    O_PROJ,
    POST_NORM,
    Q_PROJ,
    UP_PROJ,
    V_PROJ,
    layer_name,
)
from nano_llama.core.rope import half_to_interleaved, interleaved_to_half

ROPE_FREQS = "rope_freqs.weight"  # (K/2,) divisors of the frequencies: how GGUF keeps RoPE of the kind llama3
TOKEN_EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"

_TOP = {EMBED: TOKEN_EMBEDDING, NORM: "output_norm.weight", LM_HEAD: OUTPUT}
_LAYER = {
    INPUT_NORM: "attn_norm.weight",
    Q_PROJ: "attn_q.weight",
    K_PROJ: "attn_k.weight",
    V_PROJ: "attn_v.weight",
    O_PROJ: "attn_output.weight",
    POST_NORM: "ffn_norm.weight",
    GATE_PROJ: "ffn_gate.weight",
    UP_PROJ: "ffn_up.weight",
    DOWN_PROJ: "ffn_down.weight",
}
_TOP_BACK = {theirs: ours for ours, theirs in _TOP.items()}
_LAYER_BACK = {theirs: ours for ours, theirs in _LAYER.items()}
_OURS = re.compile(r"model\.layers\.(0|[1-9]\d{0,5})\.(.+)")
_THEIRS = re.compile(r"blk\.(0|[1-9]\d{0,5})\.(.+)")


def to_gguf(name: str) -> str | None:
    """model.layers.3.mlp.up_proj.weight -> blk.3.ffn_up.weight. None: a LLaMA has no such parameter."""
    found = _OURS.fullmatch(name)
    if found is None:
        return _TOP.get(name)
    part = _LAYER.get(found[2])
    return part and f"blk.{found[1]}.{part}"


def from_gguf(name: str) -> str | None:
    """blk.3.ffn_up.weight -> model.layers.3.mlp.up_proj.weight. None: a LLaMA has no such parameter."""
    found = _THEIRS.fullmatch(name)
    if found is None:
        return _TOP_BACK.get(name)
    part = _LAYER_BACK.get(found[2])
    return part and layer_name(int(found[1]), part)


def is_rotated(name: str) -> bool:
    """True for q_proj and k_proj, whose rows the two formats order differently."""
    return name.endswith((Q_PROJ, K_PROJ))


def rows_from_gguf(rows: int, head_dim: int) -> np.ndarray:
    """Indices (rows,) that bring GGUF's rows into transformers' order: ours = theirs[indices]."""
    return interleaved_to_half(np.arange(rows), head_dim)


def rows_to_gguf(rows: int, head_dim: int) -> np.ndarray:
    """Indices (rows,) for the way back: theirs = ours[indices]."""
    return half_to_interleaved(np.arange(rows), head_dim)
