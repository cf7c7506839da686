"""The learning rate over a run: linear warmup, then one of three ways down, or none.

Pure functions of a run's progress (0 to 1), not of the step, so that a run by the clock and a run by steps follow the
same curve. Tests: tests/training/test_schedule.py.

    lr = learning_rate("wsd", progress, peak, warmup, final, decay)
"""

import math

from nano_llama.core.errors import UserError

NAMES = ("cosine", "linear", "wsd", "constant")
WARMUP_STEPS = 10  # at least this many updates come before the peak
DECAY = 0.2  # final fraction of the run in which WSD falls: Hägele et al. 2024 find 10 to 20% enough


def learning_rate(
    name: str, progress: float, peak: float, warmup: float, final: float, decay: float | None = None
) -> float:
    """By the schedule's name. decay: of WSD alone; None: DECAY."""
    if name == "wsd":
        return warmup_stable_decay(progress, peak, warmup, final, DECAY if decay is None else decay)
    if name == "constant":
        return warmup_stable_decay(progress, peak, warmup, 1.0, decay=0.0)
    return {"cosine": warmup_cosine, "linear": warmup_linear}[name](progress, peak, warmup, final)


def warm_up_by_steps(lr: float, step: int, peak: float, warming_up: bool) -> float:
    """The learning rate of update `step` (from 0) of a run by the clock, whose warmup may last any number of steps.

    A slow start can use up the warmup before the first update, and a fast one makes hundreds at next to nothing. So
    WARMUP_STEPS count as well: no rate above (step + 1) / WARMUP_STEPS of the peak, and while the run warms up none
    below 1 / WARMUP_STEPS of it.
    """
    least = peak / WARMUP_STEPS
    return min(max(lr, least) if warming_up else lr, least * (step + 1))


def warmup_cosine(progress: float, peak: float, warmup: float, final: float) -> float:
    """The learning rate at `progress` in [0, 1].

    Rises linearly from 0 to `peak` over the first `warmup` part of the run, then follows half a cosine (Loshchilov and
    Hutter 2017, arXiv 1608.03983, eq. 5, one period) down to `final * peak` at progress 1.
    """
    if progress < warmup:
        return peak * progress / warmup
    fall = (min(progress, 1.0) - warmup) / (1.0 - warmup) if warmup < 1.0 else 1.0  # 0 at the peak, 1 at the end
    return peak * (final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * fall)))


def warmup_linear(progress: float, peak: float, warmup: float, final: float) -> float:
    """Up from 0 to `peak` over the first `warmup` part, then in a straight line down to `final * peak`.

    A line to zero averages the late gradients with weights that fall evenly; Defazio et al. 2023 (arXiv 2310.07831)
    derive it as the best schedule for the last iterate of convex problems, and Bergsma et al. 2025 find it ahead of the
    cosine for language models.
    """
    if progress < warmup:
        return peak * progress / warmup
    return peak * (1 - (1 - final) * _part(progress, warmup, 1.0))


def warmup_stable_decay(progress: float, peak: float, warmup: float, final: float, decay: float = DECAY) -> float:
    """Up to `peak`, constant, and over the last `decay` part in a straight line down to `final * peak` (WSD).

    Hu et al. 2024 (arXiv 2404.06395), section 4. Until the fall begins nothing depends on how long the run will be: it
    may be made longer, or ended from any checkpoint by a fall of its own. Raises UserError if both parts overlap.
    """
    if warmup + decay > 1:
        raise UserError(f"warmup = {warmup} and decay = {decay} add up to more than the whole run.")
    if progress < warmup:
        return peak * progress / warmup
    return peak * (1 - (1 - final) * _part(progress, 1 - decay, 1.0))


def _part(progress: float, start: float, end: float) -> float:
    """How far `progress` is from `start` to `end`, 0 to 1; an empty range is over."""
    return min(max((progress - start) / (end - start), 0.0), 1.0) if start < end else float(progress >= end)
