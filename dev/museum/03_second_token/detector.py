"""In however many parts a text comes, with a cache the logits are those of the whole text."""

import numpy as np

from nano_llama import LlamaConfig
from nano_llama.vol1_numpy.generate import KVCache
from nano_llama.vol1_numpy.model import Llama

LENGTH = 23
CONFIG = LlamaConfig(
    vocab_size=29, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3,
)  # fmt: skip


def model_and_tokens():
    model = Llama.init(CONFIG, seed=1, dtype=np.float64, threads=1)
    return model, np.random.default_rng(3).integers(0, 29, (1, LENGTH))


def test_parts_give_the_logits_of_the_whole():
    model, tokens = model_and_tokens()
    whole = model.forward(tokens)
    for parts in ([22, 1], [7, 16], [1] * LENGTH, [5, 1, 8, 9]):
        cache, start = KVCache(CONFIG, LENGTH, dtype=np.float64), 0
        for count in parts:
            logits = model.forward(tokens[:, start : start + count], past=cache)
            error = abs(logits - whole[:, start : start + count]).max()
            assert error < 1e-9, (
                f"a text in parts of {parts} tokens: after the first {start} tokens the logits of the next {count}"
                f" are off by {error:.2g}"
            )
            start += count


def test_no_part_sees_what_comes_after_it():
    model, tokens = model_and_tokens()
    changed = tokens.copy()
    changed[:, 15:] = (changed[:, 15:] + 1) % 29
    both = []
    for text in (tokens, changed):
        cache = KVCache(CONFIG, LENGTH, dtype=np.float64)
        model.forward(text[:, :10], past=cache)
        both.append(model.forward(text[:, 10:], past=cache)[:, :5])
    assert np.allclose(*both), "later tokens change the logits before them"
