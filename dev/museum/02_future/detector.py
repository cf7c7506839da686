"""The future must not change the past: the logits of a position depend on the tokens up to it, and on no later one."""

import numpy as np

from nano_llama import LlamaConfig, SamplingParams
from nano_llama.vol1_numpy.generate import generate
from nano_llama.vol1_numpy.model import Llama

CONFIG = LlamaConfig(
    vocab_size=29, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3,
)  # fmt: skip


def test_no_position_sees_what_comes_after_it():
    model = Llama.init(CONFIG, seed=1, dtype=np.float64, threads=1)
    tokens = np.random.default_rng(0).integers(0, 29, (2, 24))
    before = model.forward(tokens)
    for t in range(1, 24):
        changed = tokens.copy()
        changed[:, t:] = (changed[:, t:] + 7) % 29
        assert np.allclose(model.forward(changed)[:, :t], before[:, :t]), (
            f"new tokens from position {t} on change the logits before it"
        )


def test_generation_with_a_cache_equals_generation_without():
    model = Llama.init(CONFIG, seed=1, dtype=np.float64, threads=1)
    greedy = SamplingParams(temperature=0.0, max_tokens=12)
    cached, naive = (list(generate(model, [1, 2, 3, 4, 5], greedy, end_ids=(), use_cache=use)) for use in (True, False))
    assert cached == naive, "with the cache it continues a prompt in another way than without it"
