"""`read_bandwidth` reads every word, with any number of threads, and reports the fastest pass."""

import numpy as np
import pytest

from nano_llama.vol3_engine import roofline


def test_every_word_is_added():
    words = np.random.default_rng(0).integers(-(10**9), 10**9, 1003)
    assert roofline._sum(words) == words.sum()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bandwidth_is_that_of_the_fastest_pass(threads, monkeypatch):
    times = iter([0.0, 0.5, 1.0, 1.25, 2.0, 4.0])  # passes of 0.5, 0.25 and 2 seconds
    monkeypatch.setattr(roofline.time, "perf_counter", lambda: next(times))
    size = 8 * 2**20 + 8  # not divisible by the number of threads
    assert roofline.read_bandwidth(threads, size=size, repeats=3) == size / 0.25
