"""A whole text at once, the same text token by token, and an implementation with loops over heads: the same logits."""

import numpy as np

from nano_llama import LlamaConfig
from nano_llama.vol1_numpy.generate import KVCache
from nano_llama.vol1_numpy.gradcheck import gradcheck_model
from nano_llama.vol1_numpy.model import Llama

TOKENS = np.random.default_rng(2).integers(0, 29, 12)


def tiny(heads, groups):
    config = LlamaConfig(
        vocab_size=29, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=heads,
        num_key_value_heads=groups, max_position_embeddings=64, tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    return Llama.init(config, seed=1, dtype=np.float64, threads=1)


def rotated(x, position, theta):
    """x (K,): feature i and i + K/2 are one complex number, turned by the position times its frequency."""
    half = len(x) // 2
    z = (x[:half] + 1j * x[half:]) * np.exp(1j * position * theta ** (-np.arange(half) / half))
    return np.concatenate([z.real, z.imag])


def normed(x, weight, eps):
    return x / np.sqrt((x**2).mean() + eps) * weight


def reference_logits(config, params, tokens):
    """tokens (T,) -> (T,V), one position and one head at a time, in float64."""
    H, G, K, eps = config.num_attention_heads, config.num_key_value_heads, config.head_dim, config.rms_norm_eps
    stream = [params["model.embed_tokens.weight"][t] for t in tokens]
    for i in range(config.num_hidden_layers):
        W = {name.split(f"layers.{i}.")[1]: w for name, w in params.items() if f"layers.{i}." in name}
        h = [normed(x, W["input_layernorm.weight"], eps) for x in stream]
        q, k, v = ([W[f"self_attn.{m}_proj.weight"] @ x for x in h] for m in "qkv")
        for t in range(len(stream)):
            heads = []
            for head in range(H):
                own, shared = (slice(n * K, (n + 1) * K) for n in (head, head * G // H))
                query = rotated(q[t][own], t, config.rope_theta) / np.sqrt(K)
                scores = np.array([query @ rotated(k[s][shared], s, config.rope_theta) for s in range(t + 1)])
                weights = np.exp(scores - scores.max())
                heads.append(sum(w * v[s][shared] for s, w in enumerate(weights / weights.sum())))
            stream[t] = stream[t] + W["self_attn.o_proj.weight"] @ np.concatenate(heads)
        for t, x in enumerate(stream):
            h = normed(x, W["post_attention_layernorm.weight"], eps)
            gate, up = W["mlp.gate_proj.weight"] @ h, W["mlp.up_proj.weight"] @ h
            stream[t] = x + W["mlp.down_proj.weight"] @ (gate / (1 + np.exp(-gate)) * up)
    head = params["model.embed_tokens.weight"]
    return np.array([head @ normed(x, params["model.norm.weight"], eps) for x in stream])


def test_at_once_or_token_by_token():
    for heads, groups in ((4, 4), (4, 2), (2, 1)):
        model = tiny(heads, groups)
        cache = KVCache(model.config, len(TOKENS), dtype=np.float64)
        singly = np.array([model.forward(np.array([[token]]), past=cache)[0, 0] for token in TOKENS])
        error = abs(model.forward(TOKENS[None])[0] - singly).max(axis=1)
        bad = np.flatnonzero(error > 1e-9)
        assert not len(bad), f"{heads} heads: fed at once, position {bad[0]} has other logits than fed token by token"


def test_the_logits_are_those_of_another_implementation():
    for heads, groups in ((1, 1), (4, 4), (4, 2)):
        model = tiny(heads, groups)
        error = abs(model.forward(TOKENS[None])[0] - reference_logits(model.config, model.params, TOKENS)).max()
        assert error < 1e-9, f"{heads} heads: the logits differ from the reference's by {error:.2g}"


def test_gradients():
    gradcheck_model(tiny(4, 2), TOKENS[None], np.roll(TOKENS, -1)[None], samples=3)
