"""The study's three softmaxes against float64, and what it claims about memory."""

import numpy as np
import pytest

from nano_llama.studies import online_softmax as study


@pytest.mark.parametrize("way", study.WAYS)
@pytest.mark.parametrize("T", [1, 63, 64, 65, 1000])
def test_each_way_is_a_softmax_in_float64(way, T):
    x = np.random.default_rng(T).standard_normal(T)
    wanted = np.exp(x) / sum(np.exp(x))
    np.testing.assert_allclose(study.WAYS[way](x), wanted, rtol=1e-13)


def test_only_the_naive_softmax_overflows():
    x = np.array([1000.0, 999.0, -1000.0], np.float32)
    assert not np.isfinite(study.naive_softmax(x)).all()
    for way in ("two passes", "online"):
        np.testing.assert_allclose(study.WAYS[way](x), [1 / (1 + np.exp(-1)), 1 / (1 + np.e), 0.0], rtol=1e-6)
    assert study.softmax_error("naive", 64, 200.0, seed=0) == np.inf
    assert study.softmax_error("online", 64, 200.0, seed=0) < 1e-6


def test_online_blocks_in_rising_order_rescale_the_sum():
    x = np.arange(300.0)  # every block raises the maximum
    np.testing.assert_allclose(study.online_softmax(x, block=7), study.two_pass_softmax(x), rtol=1e-12)


def test_flash_needs_less_memory_for_the_same_numbers():
    plain, flash = (study.attention_cost(kind, 512, seed=0) for kind in ("attention", "flash"))
    assert flash[0] < plain[0] / 3
    assert plain[2] < 1e-5 and flash[2] < 1e-5
