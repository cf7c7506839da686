"""The names and shapes of a LLaMA's parameters: those of transformers' `LlamaForCausalLM`, in forward order.

Tests: tests/core/test_names_init_presets.py.
"""

from nano_llama.core.config import LlamaConfig

EMBED = "model.embed_tokens.weight"  # (V, D)
NORM = "model.norm.weight"  # (D,)
LM_HEAD = "lm_head.weight"  # (V, D), absent from a tied model

# A layer's parameters, in the order in which the forward pass meets them.
INPUT_NORM = "input_layernorm.weight"
Q_PROJ, K_PROJ, V_PROJ, O_PROJ = (f"self_attn.{x}_proj.weight" for x in "qkvo")
POST_NORM = "post_attention_layernorm.weight"
GATE_PROJ, UP_PROJ, DOWN_PROJ = (f"mlp.{x}_proj.weight" for x in ("gate", "up", "down"))


def layer_name(index: int, part: str) -> str:
    """layer_name(3, Q_PROJ) == "model.layers.3.self_attn.q_proj.weight"."""
    return f"model.layers.{index}.{part}"


def layer_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """part -> shape for one layer; matrices are (out, in), as torch's Linear keeps them."""
    D, F = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim  # H * K
    keys = config.num_key_value_heads * config.head_dim  # G * K
    return {
        INPUT_NORM: (D,),
        Q_PROJ: (queries, D),
        K_PROJ: (keys, D),
        V_PROJ: (keys, D),
        O_PROJ: (D, queries),
        POST_NORM: (D,),
        GATE_PROJ: (F, D),
        UP_PROJ: (F, D),
        DOWN_PROJ: (D, F),
    }


def parameter_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """name -> shape of every parameter, in forward order. A tied model has no `lm_head.weight`."""
    V, D = config.vocab_size, config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {EMBED: (V, D)}
    for index in range(config.num_hidden_layers):
        shapes |= {layer_name(index, part): shape for part, shape in layer_shapes(config).items()}
    shapes[NORM] = (D,)
    if not config.tie_word_embeddings:
        shapes[LM_HEAD] = (V, D)
    return shapes


def trace_names(config: LlamaConfig) -> list[str]:
    """The activations that every volume can record, in forward order, under the same names.

    model.embed_tokens (B,T,D) · for each layer i, under model.layers.i: input_layernorm (B,T,D),
    self_attn.q_proj (B,T,H*K), self_attn.k_proj and self_attn.v_proj (B,T,G*K), self_attn.weights (B,H,T,T: who
    attends to whom, each row sums to 1), self_attn.o_proj (B,T,D), post_attention_layernorm (B,T,D), mlp.gate_proj
    and mlp.up_proj (B,T,F), mlp.down_proj (B,T,D) · model.layers.i (B,T,D: the residual stream after the layer) ·
    model.norm (B,T,D) · lm_head (B,T,V: the logits).
    """
    parts = [name.removesuffix(".weight") for name in layer_shapes(config)]
    parts.insert(parts.index("self_attn.o_proj"), "self_attn.weights")
    layers = [name for i in range(config.num_hidden_layers)
              for name in [*(layer_name(i, part) for part in parts), f"model.layers.{i}"]]  # fmt: skip
    return ["model.embed_tokens", *layers, "model.norm", "lm_head"]


def is_hidden_matrix(name: str) -> bool:
    """True for the matrices inside the layers: what Muon updates. Embedding, head and norms are not.

    Names of an image encoder's layers (core/vision/names.py) count too.
    """
    return ".layers." in name and name.endswith(_HIDDEN)


def is_decayed(name: str) -> bool:
    """True for what weight decay applies to: every matrix, never a norm's gain, a bias or DoRA's lengths."""
    return not name.endswith(_NOT_DECAYED)


_HIDDEN = ("_proj.weight", ".fc1.weight", ".fc2.weight", ".lora_A", ".lora_B")
_NOT_DECAYED = ("norm.weight", "norm1.weight", "norm2.weight", ".bias", ".lora_magnitude_vector")
