"""A position's row after attention holds that position's heads, one after another, and nothing of any other."""

import numpy as np

from nano_llama import LlamaConfig
from nano_llama.vol1_numpy.layer import merge_heads, split_heads
from nano_llama.vol1_numpy.model import Llama


def test_the_past_does_not_depend_on_the_future():
    config = LlamaConfig(
        vocab_size=29, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    model = Llama.init(config, seed=1, dtype=np.float64, threads=1)
    tokens = np.random.default_rng(0).integers(0, 29, (1, 12))
    changed = tokens.copy()
    changed[:, 8:] = (changed[:, 8:] + 7) % 29
    assert np.allclose(model.forward(tokens)[:, :8], model.forward(changed)[:, :8]), (
        "the logits of the first 8 positions change with the tokens after them"
    )


def test_splitting_and_merging_is_nothing():
    x = np.random.default_rng(0).standard_normal((2, 5, 12))
    for head_dim in (2, 3, 4, 6, 12):
        assert np.array_equal(merge_heads(split_heads(x, head_dim)), x), f"heads of {head_dim} come back otherwise"


def test_each_head_takes_its_features():
    x = np.arange(2 * 5 * 12).reshape(2, 5, 12)
    for head, part in enumerate(split_heads(x, 4).swapaxes(0, 1)):
        assert np.array_equal(part, x[:, :, 4 * head : 4 * head + 4]), f"head {head} has other features than its own"
