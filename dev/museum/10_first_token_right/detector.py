"""With a cache or without it, in one piece or in several: the same logits at every position."""

import numpy as np

from nano_llama import LlamaConfig
from nano_llama.vol1_numpy.generate import KVCache
from nano_llama.vol1_numpy.model import Llama

CONFIG = LlamaConfig(
    vocab_size=29, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3,
)  # fmt: skip
TOKENS = np.random.default_rng(0).integers(0, 29, (1, 20))


def in_pieces(model, lengths):
    cache, done, logits = KVCache(CONFIG, 20, dtype=model.dtype), 0, []
    for length in lengths:
        logits.append(model.forward(TOKENS[:, done : done + length], past=cache))
        done += length
    return np.concatenate(logits, axis=1)


def test_a_cache_changes_nothing():
    model = Llama.init(CONFIG, seed=1, dtype=np.float64, threads=1)
    whole = model.forward(TOKENS)
    for lengths in ([20], [8] + [1] * 12, [8, 12], [1] * 20, [5, 5, 5, 5]):
        difference = abs(in_pieces(model, lengths) - whole).max(axis=(0, 2))
        first = int(np.argmax(difference > 1e-9))
        assert (difference < 1e-9).all(), f"in pieces of {lengths} the logits differ from position {first} on"
