"""LoRA's linear layer: what it starts as, what it stands for, and that it learns. Gradients: test_ops_gradients.py."""

import numpy as np
import pytest

from nano_llama.core.lora import LoraConfig
from nano_llama.vol1_numpy.ops import linear_backward, linear_forward, lora_linear_backward, lora_linear_forward


def matrices(rng, out=7, columns=5, r=2):
    return rng.standard_normal((out, columns)), rng.standard_normal((r, columns)), rng.standard_normal((out, r))


def test_with_b_zero_it_is_the_frozen_layer_and_only_b_has_a_gradient():
    rng = np.random.default_rng(0)
    weight, A, B = matrices(rng)
    x, dy = rng.standard_normal((3, 4, 5)), rng.standard_normal((3, 4, 7))
    y, cache = lora_linear_forward(x, weight, A, 0 * B, 2.0)
    expected, linear_cache = linear_forward(x, weight)
    np.testing.assert_array_equal(y, expected)
    dx, dA, dB = lora_linear_backward(dy, cache)
    np.testing.assert_allclose(dx, linear_backward(dy, linear_cache)[0], rtol=1e-14, atol=1e-14)
    assert not dA.any() and dB.all()


@pytest.mark.parametrize("rslora", [False, True])
def test_it_is_the_linear_layer_of_the_merged_matrix(rslora):
    """By the chain rule through W + s B A:  dA = s B^T dW  and  dB = s dW A^T."""
    rng = np.random.default_rng(1)
    weight, A, B = matrices(rng, r=3)
    scale = LoraConfig(r=3, alpha=5, rslora=rslora).scale
    x, dy = rng.standard_normal((2, 6, 5)), rng.standard_normal((2, 6, 7))
    y, cache = lora_linear_forward(x, weight, A, B, scale)
    merged, merged_cache = linear_forward(x, weight + scale * B @ A)
    np.testing.assert_allclose(y, merged, rtol=1e-12, atol=1e-12)
    dx, dA, dB = lora_linear_backward(dy, cache)
    merged_dx, dW = linear_backward(dy, merged_cache)
    for ours, theirs in ((dx, merged_dx), (dA, scale * B.T @ dW), (dB, scale * dW @ A.T)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_descent_finds_a_change_of_rank_r_and_leaves_the_frozen_matrix_alone():
    rng = np.random.default_rng(2)
    weight, A, B = matrices(rng, out=6, columns=6, r=2)
    goal = weight + rng.standard_normal((6, 2)) @ rng.standard_normal((2, 6))
    kept, B = weight.copy(), 0 * B
    x = rng.standard_normal((64, 6))
    losses = []
    for _ in range(3000):
        y, cache = lora_linear_forward(x, weight, A, B, 1.0)
        error = y - x @ goal.T
        losses.append(np.mean(error**2))
        _, dA, dB = lora_linear_backward(error / len(x), cache)
        A, B = A - 0.05 * dA, B - 0.05 * dB
    assert losses[-1] < 1e-6 * losses[0]
    np.testing.assert_array_equal(weight, kept)
