"""Why this token: what each step of the sampler leaves of a distribution, and where the random number falls in it.

The steps are those of sampler.py, switched on one after the other; there are no other formulas here.
Not here: choosing a token for a running text (sampler.py). Tests: tests/core/test_sampling_cuts.py.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from nano_llama.core.sampling.params import SamplingParams
from nano_llama.core.sampling.sampler import candidates, draw, greedy, penalized

CUTS = ("min_p", "top_k", "top_p")  # in the order in which they apply
OFF = {"min_p": 0.0, "top_k": 0, "top_p": 1.0}


class Step(NamedTuple):
    """What is left after one step: ids, ascending, and their probabilities. mass: how much of what was left before.

    name: "model" (nothing is cut yet), "constraint", "penalties", "temperature", "min_p", "top_k" or "top_p".
    """

    name: str
    ids: np.ndarray  # (C,)
    probabilities: np.ndarray  # (C,), of sum 1
    mass: float


class Drawn(NamedTuple):
    """The token whose piece of [0, 1) holds the random number: from `start` to `end`."""

    token: int
    probability: float
    start: float
    end: float


class Cuts(NamedTuple):
    """adjusted: the logits after constraint, bias and penalties.    (V,)"""

    adjusted: np.ndarray
    steps: list[Step]

    @property
    def left(self) -> Step:
        return self.steps[-1]

    def pieces(self) -> tuple[np.ndarray, np.ndarray]:
        """Where in [0, 1) the piece of each token that is left begins, and where it ends.    (C,), (C,)"""
        ends = np.cumsum(self.left.probabilities)
        ends /= ends[-1]
        return np.concatenate([[0.0], ends[:-1]]), ends

    def draw(self, u: float) -> Drawn:
        """The sampler's own draw.    u in [0, 1)"""
        token = draw(self.left.ids, self.left.probabilities, u)
        place = int(np.searchsorted(self.left.ids, token))
        starts, ends = self.pieces()
        return Drawn(token, float(self.left.probabilities[place]), float(starts[place]), float(ends[place]))


def cuts(
    logits: np.ndarray,
    params: SamplingParams,
    prompt_ids: Sequence[int],
    output_ids: Sequence[int],
    *,
    end_ids: Collection[int] = (),
    allowed: np.ndarray | None = None,
) -> Cuts:
    """The steps that `params` switches on, for the token after prompt_ids + output_ids.    logits: (V,)

    allowed: what a constraint lets come, (V,) bool; None: anything. end_ids: as sampler.sample's.
    """
    plain = SamplingParams()  # temperature 1, nothing cut
    steps = [Step("model", *candidates(logits, plain), 1.0)]

    def add(name: str, ids: np.ndarray, probabilities: np.ndarray) -> None:
        before = steps[-1]
        kept = before.probabilities[np.isin(before.ids, ids)]
        mass = 1.0 if len(kept) == len(before.ids) else float(kept.sum())
        steps.append(Step(name, ids, probabilities, mass))

    x = np.asarray(logits)
    if allowed is not None:
        x = np.where(allowed, x, -np.inf)
        add("constraint", *candidates(x, plain))
    adjusted = penalized(x, params, prompt_ids, output_ids, end_ids)
    if adjusted is not x:
        add("penalties", *candidates(adjusted, plain))
    if params.is_greedy:
        add("temperature", np.array([greedy(adjusted)]), np.ones(1))
        return Cuts(adjusted, steps)
    given = plain.replace(temperature=params.temperature)
    if params.temperature != 1.0:
        add("temperature", *candidates(adjusted, given))
    for name in CUTS:
        value = getattr(params, name)
        if value != OFF[name] and (name != "top_k" or 0 < value < len(x)):
            given = given.replace(**{name: value})
            add(name, *candidates(adjusted, given))
    return Cuts(adjusted, steps)
