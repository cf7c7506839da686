"""The frequencies of Llama 3's RoPE, pair by pair, by the rule that its model card gives."""

import math

import numpy as np

from nano_llama import LlamaConfig
from nano_llama.core.config import RopeScaling
from nano_llama.core.rope import rope_frequencies, rope_tables

CASES = ((64, 500_000.0, 32.0, 8192), (128, 500_000.0, 8.0, 8192), (32, 10_000.0, 4.0, 512))
LOW, HIGH = 1.0, 4.0


def config(head_dim, theta, factor, original):
    scaling = RopeScaling(
        rope_type="llama3", factor=factor, original_max_position_embeddings=original, low_freq_factor=LOW,
        high_freq_factor=HIGH,
    )  # fmt: skip
    return LlamaConfig(
        vocab_size=9, hidden_size=2 * head_dim, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=int(factor) * original, rope_theta=theta, rope_scaling=scaling,
    )  # fmt: skip


def by_the_card(head_dim, theta, factor, original):
    frequencies = []
    for i in range(0, head_dim, 2):
        frequency = theta ** (-i / head_dim)
        turns = original * frequency / (2 * math.pi)  # over the context of the pretraining
        if turns > HIGH:
            share = 1.0
        elif turns < LOW:
            share = 0.0
        else:
            share = (turns - LOW) / (HIGH - LOW)
        frequencies.append((1 - share) * frequency / factor + share * frequency)
    return np.array(frequencies)


def test_every_pair_turns_as_fast_as_the_card_says():
    for case in CASES:
        got, expected = rope_frequencies(config(*case))[0], by_the_card(*case)
        wrong = np.flatnonzero(~np.isclose(got, expected, rtol=1e-9))
        assert not len(wrong), (
            f"factor {case[2]:g}: {len(wrong)} of {len(got)} pairs turn at another speed; the first at"
            f" {got[wrong[0]] / expected[wrong[0]]:.3g} times that of the card"
        )


def test_angles_beyond_the_pretraining():
    for case in CASES:
        position = 3 * case[3]
        cos, sin = rope_tables(config(*case), np.array([position]), np.float64)
        exact = position * by_the_card(*case)
        assert np.allclose(cos[0] + 1j * sin[0], np.exp(1j * exact), atol=1e-6), (
            f"position {position:,} is rotated to other angles than in the reference"
        )
