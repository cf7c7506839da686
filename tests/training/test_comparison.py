"""Means, intervals and verdicts of two settings on the same seeds, against numeric integration of Student's density."""

import math

import numpy as np
import pytest

from nano_llama.training.comparison import MOST_SEEDS, T_95, Comparison, Estimate


@pytest.mark.parametrize("freedom", [1, 2, 5, 19])
def test_the_quantiles_leave_one_in_twenty_outside(freedom):
    """Of Student's density, (1 + x^2/n)^(-(n+1)/2) times a constant, 95% lies within."""
    x = np.linspace(-math.pi / 2, math.pi / 2, 2_000_001)[1:-1]  # x = tan: the tails of one degree are long
    t = np.tan(x)
    density = (1 + t**2 / freedom) ** (-(freedom + 1) / 2) * (1 + t**2)
    assert density[abs(t) < T_95[freedom - 1]].sum() / density.sum() == pytest.approx(0.95, abs=1e-4)
    assert len(T_95) == MOST_SEEDS - 1


def test_the_interval_holds_the_true_mean_in_19_of_20_trials():
    rng = np.random.default_rng(0)
    estimates = [Estimate.of(list(rng.normal(3.0, 0.2, 4))) for _ in range(4_000)]
    held = np.mean([abs(estimate.mean - 3.0) < estimate.margin for estimate in estimates])
    assert held == pytest.approx(0.95, abs=0.012)


def test_what_a_seed_does_to_both_cancels():
    seeds = [0.0, 0.3, -0.2]
    comparison = Comparison(("a", "b"), [2 + s for s in seeds], [1.9 + s + 0.001 * s for s in seeds], "nats per token")
    assert comparison.estimates[0].margin > 0.5
    assert comparison.larger_than_noise
    assert comparison.sentence.startswith("b is 0.1000 ±") and "larger than the noise" in comparison.sentence


def test_noise_is_called_noise():
    comparison = Comparison(("a", "b"), [2.0, 2.1, 1.9], [2.02, 1.95, 2.1], "nats per token")
    assert not comparison.larger_than_noise
    assert "not larger than the noise" in comparison.sentence
