"""Means, intervals and verdicts of settings on the same seeds, against numeric integration of Student's density."""

import math

import numpy as np
import pytest

from nano_llama.training.comparison import Comparison, Estimate, student_quantile, student_within


def integrated(t: float, freedom: int) -> float:
    """The share within -t to t of Student's density, (1 + x^2/n)^(-(n+1)/2) times a constant."""
    x = np.linspace(-math.pi / 2, math.pi / 2, 200_001)[1:-1]  # x = tan: the tails of one degree are long
    at = np.tan(x)
    density = (1 + at**2 / freedom) ** (-(freedom + 1) / 2) * (1 + at**2)
    return float(density[abs(at) < t].sum() / density.sum())


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 8, 19])
@pytest.mark.parametrize("sure", [0.95, 1 - 0.05 / 7])
def test_the_quantiles_leave_as_many_outside_as_they_say(freedom, sure):
    t = student_quantile(sure, freedom)
    assert integrated(t, freedom) == pytest.approx(sure, abs=1e-4)
    for other in (0.3, 1.7):
        assert student_within(other * t, freedom) == pytest.approx(integrated(other * t, freedom), abs=1e-4)


def test_scipy_has_the_same_quantiles():
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 9, 40, 199):
        for sure in (0.5, 0.95, 0.9999):
            assert student_quantile(sure, freedom) == pytest.approx(stats.t.ppf((1 + sure) / 2, freedom), rel=1e-9)


def test_the_interval_holds_the_true_mean_in_19_of_20_trials():
    rng = np.random.default_rng(0)
    estimates = [Estimate.of(list(rng.normal(3.0, 0.2, 4))) for _ in range(4_000)]
    held = np.mean([abs(estimate.mean - 3.0) < estimate.margin for estimate in estimates])
    assert held == pytest.approx(0.95, abs=0.012)


def test_a_sweep_without_any_difference_finds_none_in_19_of_20_trials():
    """Each interval alone would find one in about a quarter of them."""
    rng = np.random.default_rng(1)
    found = {1: 0, 6: 0}
    for _ in range(1_500):
        losses = {name: list(rng.normal(3.0, 0.2, 4)) for name in "abcdefg"}
        sweep = Comparison(losses, "nats per token")
        found[6] += any(sweep.difference(name).without_zero for name in sweep.names[1:])
        found[1] += any(
            Comparison({"a": losses["a"], name: losses[name]}, "").difference(name).without_zero for name in "bcdefg"
        )
    assert found[6] / 1_500 < 0.05 + 3 * 0.0056  # three standard errors of so many trials
    assert found[1] / 1_500 > 0.15


def test_what_a_seed_does_to_both_cancels():
    seeds = [0.0, 0.3, -0.2]
    comparison = Comparison({"a": [2 + s for s in seeds], "b": [1.9 + s + 0.001 * s for s in seeds]}, "nats per token")
    assert comparison.estimate("a").margin > 0.5
    assert comparison.verdict("b") == "lower" and comparison.sorted_names == ["b", "a"]
    assert comparison.sentence.startswith("b is 0.1000 ±") and "larger than the noise" in comparison.sentence


def test_noise_is_called_noise():
    comparison = Comparison({"a": [2.0, 2.1, 1.9], "b": [2.02, 1.95, 2.1]}, "nats per token")
    assert comparison.verdict("b") == "not larger than the noise"
    assert "not larger than the noise" in comparison.sentence


def test_of_many_each_is_compared_with_the_first():
    seeds = [0.0, 0.3, -0.2, 0.1]
    shifts = {"first": 0.0, "worse": 0.2, "better": -0.3, "same": 0.0}
    losses = {name: [2 + by + s for s in seeds] for name, by in shifts.items()}
    losses["same"] = [2.1, 2.1, 2.0, 1.9]
    losses["better"][0] += 0.01
    losses["worse"][0] += 0.01
    comparison = Comparison(losses, "nats per token")
    assert comparison.sorted_names[0] == "better" and comparison.sorted_names[-1] == "worse"
    assert comparison.sentence.startswith("Against first, lower: better; higher: worse (4 seeds; 95% for all 3 comp")
    assert "same" not in comparison.sentence
    alone = Comparison({name: losses[name] for name in ("first", "better")}, "nats per token").difference("better")
    assert comparison.difference("better").mean == pytest.approx(alone.mean)
    wider = student_quantile(1 - 0.05 / 3, 3) / student_quantile(0.95, 3)
    assert comparison.difference("better").margin == pytest.approx(alone.margin * wider)
    found = comparison.to_json()
    assert [one["name"] for one in found["settings"]] == comparison.sorted_names
    verdicts = {one["name"]: one["larger_than_noise"] for one in found["settings"]}
    assert verdicts == {"first": None, "worse": True, "better": True, "same": False}


def test_no_difference_at_all_is_said():
    sweep = Comparison({"a": [2.0, 2.1], "b": [2.0, 2.1], "c": [2.1, 2.0]}, "nats per token")
    assert sweep.sentence.startswith("Against a, none differs by more than the noise (2 seeds")
