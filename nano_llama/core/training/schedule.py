"""The learning rate over a run: a linear rise, then half a cosine down.

A pure function of how far the run is (0 to 1), not of a step's number, so that a run by the clock and a run by steps
follow the same curve. Not here: how far the run is (budget.py). Tests: tests/core/training/test_schedule.py.
"""

import math


def warmup_cosine(progress: float, peak: float, warmup: float, final: float) -> float:
    """The learning rate at `progress` in [0, 1].

    Rises linearly from 0 to `peak` over the first `warmup` part of the run, then follows half a cosine (Loshchilov and
    Hutter 2017, arXiv 1608.03983, eq. 5, one period) down to `final * peak` at progress 1.
    """
    if progress < warmup:
        return peak * progress / warmup
    fall = (min(progress, 1.0) - warmup) / (1.0 - warmup) if warmup < 1.0 else 1.0  # 0 at the peak, 1 at the end
    return peak * (final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * fall)))
