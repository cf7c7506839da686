"""`read_bandwidth` reads every word, with any number of threads, and tells a speed that a memory can have."""

import numpy as np
import pytest

from nano_llama.vol3_engine.roofline import _total, read_bandwidth


def test_every_word_is_added():
    words = np.random.default_rng(0).integers(-(10**9), 10**9, 1003)
    assert _total(words) == words.sum()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_speed(threads):
    speed = read_bandwidth(threads, size=8 * 2**20 + 8, repeats=2)
    assert 1e7 < speed < 1e13
