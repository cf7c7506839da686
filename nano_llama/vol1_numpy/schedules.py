"""Learning rates over a run: three shapes after the same linear rise. Pure functions of how far the run is.

Not here: the cosine, which every engine's training follows (core/training/schedule.py), and what "how far" means
(core/training/budget.py). Tests: tests/vol1/test_schedules.py.

    lr = SCHEDULES["wsd"](progress, peak, warmup, final)       progress in [0, 1], the result in optimizer.step(..., lr)
"""

from collections.abc import Callable

from nano_llama.core.errors import UserError
from nano_llama.core.training.schedule import warmup_cosine

DECAY = 0.2  # of the run, at its end, in which WSD falls: Hägele et al. 2024 find 10 to 20% enough


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
    may be made longer, or ended from any checkpoint by a fall of its own. Raises UserError where both parts overlap.
    """
    if warmup + decay > 1:
        raise UserError(f"warmup = {warmup} and decay = {decay} together are more than the whole run.")
    if progress < warmup:
        return peak * progress / warmup
    return peak * (1 - (1 - final) * _part(progress, 1 - decay, 1.0))


SCHEDULES: dict[str, Callable[[float, float, float, float], float]] = {
    "cosine": warmup_cosine,
    "linear": warmup_linear,
    "wsd": warmup_stable_decay,
}


def _part(progress: float, start: float, end: float) -> float:
    """How far `progress` is from `start` to `end`, 0 to 1; an empty stretch is over."""
    return min(max((progress - start) / (end - start), 0.0), 1.0) if start < end else float(progress >= end)
