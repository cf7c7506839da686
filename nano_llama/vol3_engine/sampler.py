"""The engine's sampler: the tokens that core/sampling chooses, for many rows of a large vocabulary, in less time.

Its plain twin is core/sampling/sampler.py, and it has no formula of its own. It only leaves out work that cannot change
the answer: greedy rows are compared in one call; where top_k or min_p cut the vocabulary, a sieve lets those through
that may stay, and the twin decides among the few; without them, the cumulated sum over the vocabulary is taken in
coarse parts and looked at closely in one of them only. Where rounding might decide, the twin is asked.

Not here: penalties and what a token's probability is (core/sampling). Tests: tests/vol3/test_sampler.py.
"""

from collections.abc import Sequence as Rows

import numpy as np

from nano_llama.core.sampling import SamplingParams
from nano_llama.core.sampling.philox import uniform
from nano_llama.core.sampling.sampler import candidates, draw, greedy, penalized
from nano_llama.vol3_engine.sequence import Sequence

SLACK = 1e-9  # far above what float64 rounds away in a sum over a vocabulary, far below any probability that matters
PART = 128  # tokens whose weights are summed together first
GROUPS = 64  # logits that are compared at once: the largest of each group


class Sampler:
    """Chooses for a vocabulary of `vocab_size`; it owns the room that a row needs, so that no call asks for memory."""

    def __init__(self, vocab_size: int):
        self.room = np.zeros(-(-vocab_size // PART) * PART)  # float64; behind the vocabulary it stays 0

    def choose(self, logits: np.ndarray, sequences: Rows[Sequence]) -> list[int]:
        """The next token of each sequence from its row of logits (R,V).

        The random number is uniform(seed, tokens before this one): a row's token does not depend on the other rows.
        Raises NanoLlamaError where the logits hold not-a-number.
        """
        return [self.choose_one(row, sequence) for row, sequence in zip(logits, sequences, strict=True)]

    def choose_one(self, logits: np.ndarray, sequence: Sequence) -> int:
        """One row: penalties, then greedy or a draw.    logits: (V,)"""
        params, prompt, output = sequence.params, sequence.prompt_ids, sequence.output_ids
        x = penalized(logits, params, prompt, output)  # (V,)
        likeliest = greedy(x)  # raises where the logits are broken
        if params.is_greedy:
            return likeliest
        u = uniform(sequence.seed, len(prompt) + len(output))
        ids = sieve(x, float(x[likeliest]), params)
        if ids is not None:
            places, probabilities = candidates(x[ids], params)
            return draw(ids[places], probabilities, u)
        weights = self._weights(x, float(x[likeliest]), params.temperature)  # (V,)
        token = self._draw_all(len(x), u) if params.top_p >= 1 else draw_nucleus(weights, params.top_p, u)
        return draw(*candidates(x, params), u) if token is None else token

    def _weights(self, x: np.ndarray, largest: float, temperature: float) -> np.ndarray:
        """exp((x - largest) / temperature), as the twin computes it, in this sampler's room.    (V,) -> (V,)"""
        y = np.subtract(x, largest, out=self.room[: len(x)], dtype=np.float64)
        if temperature != 1:
            with np.errstate(over="ignore"):
                y /= temperature
        return np.exp(y, out=y)

    def _draw_all(self, vocab_size: int, u: float) -> int | None:
        """The first token whose cumulated weight exceeds u times the total; None where it is too close to call."""
        sums = np.cumsum(self.room.reshape(-1, PART).sum(axis=1))  # (parts,)
        target = u * sums[-1]
        part = min(int(np.searchsorted(sums, target, side="right")), len(sums) - 1)
        inside = np.cumsum(self.room[part * PART : (part + 1) * PART])
        inside += sums[part - 1] if part else 0.0  # (PART,)
        place = int(np.searchsorted(inside, target, side="right"))
        if place == PART or part * PART + place >= vocab_size:
            return None
        below = inside[place - 1] if place else (sums[part - 1] if part else -np.inf)
        near = min(inside[place] - target, target - below) <= SLACK * sums[-1]
        return None if near else part * PART + place


def sieve(x: np.ndarray, largest: float, params: SamplingParams) -> np.ndarray | None:
    """The ids that top_k and min_p may leave, and some more; None: neither is asked for.    (V,) -> (C,) or None"""
    if params.min_p <= 0 and not 0 < params.top_k < len(x):
        return None
    floor = -np.inf
    if params.min_p > 0:
        floor = largest + params.temperature * float(np.log(params.min_p))  # of the logits that stay
    if 0 < params.top_k < len(x):
        floor = max(floor, floor_of_top_k(x, params.top_k))
    # Two logits that differ may be equals once the largest is subtracted and the temperature divides.
    return np.flatnonzero(x >= floor - SLACK * (abs(largest) + abs(largest - floor)))


def floor_of_top_k(x: np.ndarray, k: int) -> float:
    """No more than the k-th largest of x, and seldom much less.    x: (V,)

    The vocabulary is dealt out to groups. The k-th largest of the groups' largest is such a number, for the k groups
    that reach it each hold a logit that does.
    """
    size = len(x) // GROUPS
    if k > size:
        return float(np.partition(x, -k)[-k])
    largest = x[: size * GROUPS].reshape(GROUPS, size).max(axis=0)  # (size,) of size groups with GROUPS logits each
    return float(np.partition(largest, -k)[-k])


def draw_nucleus(weights: np.ndarray, top_p: float, u: float) -> int | None:
    """Draw among the likeliest whose mass is top_p, without sorting those that cannot be among them.    weights: (V,)

    Tokens above a floor whose mass is more than top_p hold the nucleus. The floor falls until that is so. None where
    that would take most of the vocabulary.
    """
    total = weights.sum()
    for floor in (1e-2, 1e-3, 1e-4, 1e-5):
        likely = np.flatnonzero(weights >= floor)  # the largest weight is 1
        if len(likely) > len(weights) // 8:
            return None
        if weights[likely].sum() > (top_p + SLACK) * total:
            break
    else:
        return None
    probabilities = weights[likely] / total  # (C,), as the twin's own
    order = np.argsort(-probabilities, kind="stable")
    mass_before = np.cumsum(probabilities[order]) - probabilities[order]
    kept = np.sort(order[mass_before < top_p])
    if not len(kept):
        return None
    return draw(likely[kept], probabilities[kept] / probabilities[kept].sum(), u)
