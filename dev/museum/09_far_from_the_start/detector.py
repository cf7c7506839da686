"""A rotated query times a rotated key depends on their distance only, and the tables hold the angles they should."""

import numpy as np

from nano_llama import LlamaConfig
from nano_llama.core.rope import rope_tables

STARTS = (0, 30, 400, 777, 2049, 4000)


def config(head_dim, theta):
    return LlamaConfig(
        vocab_size=9, hidden_size=2 * head_dim, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=8192, rope_theta=theta,
    )  # fmt: skip


def test_a_distance_means_the_same_wherever_it_is():
    for theta in (10_000.0, 500_000.0):
        scores = []
        for start in STARTS:
            cos, sin = rope_tables(config(64, theta), np.array([start, start + 5]))  # (2,K/2)
            scores.append(np.sum(cos[0] * cos[1] + sin[0] * sin[1]))  # of two vectors of ones: sum of cos(5 w)
            error = abs(scores[-1] - scores[0])
            assert error < 0.01, (
                f"two tokens at distance 5 have the product {scores[0]:.3f} at the beginning and {scores[-1]:.3f}"
                f" from position {start} on"
            )


def test_angles_are_exact_far_from_the_start():
    for head_dim, theta in ((32, 10_000.0), (64, 500_000.0)):
        positions = np.array(STARTS)
        exact = np.exp(1j * positions[:, None] * theta ** (-np.arange(0, head_dim, 2) / head_dim))  # (T,K/2)
        for dtype, tolerance in ((np.float32, 2e-3), (np.float64, 1e-9)):
            cos, sin = rope_tables(config(head_dim, theta), positions, dtype)
            error = abs(cos + 1j * sin - exact).max(axis=1)
            bad = np.flatnonzero(error > tolerance)
            assert not len(bad), (
                f"in {np.dtype(dtype)}, position {positions[bad[0]]} is rotated wrongly: {error[bad[0]]:.2g}"
            )
