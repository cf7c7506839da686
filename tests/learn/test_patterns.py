"""What a wrong array usually means: each pattern is named, and a right array or noise gets no sentence."""

import numpy as np
import pytest

from nano_llama.learn.patterns import usual_cause

RIGHT = np.random.default_rng(0).standard_normal((3, 3))
SIZES = {"N": 3, "D": 5}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (-RIGHT, "sign is the opposite"),
        (RIGHT * 5, "D = 5 times too large: a sum where a mean"),
        (RIGHT / 3, "N = 3 times too small: a mean where a sum"),
        (RIGHT / 15, "N D = 15 times too small"),
        (RIGHT * 5**0.5, "square root of D = 5"),
        (RIGHT / 2, "factor of 2"),
        (RIGHT * 1.7, "1.7 times what it should be"),
        (RIGHT.T, "transpose"),
        (RIGHT[::-1], "reverse order along axis 0"),
        (np.roll(RIGHT, 1, 1), "shifted by one along axis 1"),
        (RIGHT + 0.25, "off by the same 0.25"),
        (RIGHT + np.arange(3.0)[:, None], "Along the last axis"),
        (np.where(np.eye(3) > 0, 0, RIGHT), "Some entries are 0"),
        (np.where(np.eye(3) > 0, 9, RIGHT), "Most entries are right"),
        (RIGHT * (1 + 1e-4 * np.eye(3)), "nearly right"),
        (np.zeros((3, 3)), "zero throughout"),
        (np.where(np.eye(3) > 0, np.nan, RIGHT), "NaN comes from"),
        (np.where(np.eye(3) > 0, np.inf, RIGHT), "Infinity"),
        (RIGHT[:2, :], ""),
        (RIGHT.reshape(9), "reshape"),
        (RIGHT[None].repeat(2, 0), "axes too many"),
        (RIGHT**2, ""),
        ("text", ""),
    ],
)
def test_it_is_named(wrong, says):
    found = usual_cause(wrong, RIGHT, SIZES)
    assert says in found
    assert bool(says) == bool(found)


def test_of_a_single_number_only_named_factors_say_something():
    assert "N = 3 times too large" in usual_cause(0.3, 0.1, {"N": 3})
    assert "factor of 2" in usual_cause(0.2, 0.1, {})
    assert usual_cause(0.17, 0.1, {"N": 3}) == ""
    assert usual_cause(0, 3, {}) == ""


def test_a_dtype():
    assert "A float64 on the way" in usual_cause(RIGHT, RIGHT.astype("f4"), {})


def test_a_transposed_shape():
    assert "transposed shape" in usual_cause(RIGHT[:2].T, RIGHT[:2], {})
