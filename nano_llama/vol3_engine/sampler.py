"""The engine's sampler: core/sampling for batches of rows and large vocabularies, in less time.

The reference is core/sampling/sampler.py; there are no other formulas here. This one only skips work that cannot change
the answer: greedy rows take one argmax; with top_k or min_p a prefilter keeps the tokens that can survive, and the
reference decides among those few; without them, the cumulative sum over the vocabulary is taken over parts of it, and
within one part only. Where rounding might decide, the reference is asked.

Not here: penalties, what a token's probability is (core/sampling). Tests: tests/vol3/test_sampler.py.
"""

from collections import abc

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.core.sampling import SamplingParams, TokenLogprob, token_logprobs
from nano_llama.core.sampling.philox import uniform
from nano_llama.core.sampling.sampler import candidates, draw, greedy, penalized
from nano_llama.vol3_engine.sequence import Sequence

SLACK = 1e-9  # far above the rounding error of a float64 sum over a vocabulary, far below any probability that matters
PART = 128  # tokens whose weights are summed first
GROUPS = 64  # logits compared at once: the largest of each group


class Sampler:
    """Samples from a vocabulary of `vocab_size`. It owns the buffer for a row's weights, so no call allocates one.

    never: ids that are not sampled, such as the image token, for which there is no text.
    """

    def __init__(self, vocab_size: int, never: abc.Collection[int] = ()):
        self.allowed = None  # (V,) bool; None: every id
        if never:
            self.allowed = np.ones(vocab_size, bool)
            self.allowed[list(never)] = False
        self.weights = np.zeros(-(-vocab_size // PART) * PART)  # float64; beyond the vocabulary it stays 0

    def sample(self, logits: np.ndarray, sequences: abc.Sequence[Sequence]) -> list[int]:
        """The next token of each sequence from its row of logits (R,V).

        The random number is uniform(seed, number of tokens before): a row's token does not depend on the other rows.
        Raises NanoLlamaError if the logits hold a NaN.
        """
        return [self.sample_row(row, sequence) for row, sequence in zip(logits, sequences, strict=True)]

    def sample_row(self, logits: np.ndarray, sequence: Sequence) -> int:
        """The constraint's mask, penalties, then the most likely token or a draw.    logits: (V,)"""
        params, prompt, output = sequence.params, sequence.prompt_ids, sequence.output_ids
        if sequence.constraint is not None:
            allowed = sequence.constraint.allowed(end=not params.ignore_eos)
            if len(output) < params.min_tokens:
                check_goes_on(allowed, sequence)
            logits = masked(logits, allowed)
        if self.allowed is not None:
            logits = masked(logits, self.allowed)
        x = penalized(logits, params, prompt, output, sequence.stop_ids)  # (V,)
        best = greedy(x)  # raises on broken logits
        if params.is_greedy:
            return best
        u = uniform(sequence.seed, len(prompt) + len(output))
        ids = prefilter(x, float(x[best]), params)
        if ids is not None:
            kept, probabilities = candidates(x[ids], params)
            return draw(ids[kept], probabilities, u)
        weights = self._compute_weights(x, float(x[best]), params.temperature)  # (V,)
        token = self._draw_from_all(len(x), u) if params.top_p >= 1 else draw_nucleus(weights, params.top_p, u)
        return draw(*candidates(x, params), u) if token is None else token

    def _compute_weights(self, x: np.ndarray, largest: float, temperature: float) -> np.ndarray:
        """exp((x - largest) / temperature), as the reference computes it, into this sampler's buffer.  (V,) -> (V,)"""
        y = np.subtract(x, largest, out=self.weights[: len(x)], dtype=np.float64)
        if temperature != 1:
            with np.errstate(over="ignore"):
                y /= temperature
        return np.exp(y, out=y)

    def _draw_from_all(self, vocab_size: int, u: float) -> int | None:
        """The first token whose cumulative weight exceeds u times the total; None if it is too close to call."""
        sums = np.cumsum(self.weights.reshape(-1, PART).sum(axis=1))  # (parts,)
        target = u * sums[-1]
        part = min(int(np.searchsorted(sums, target, side="right")), len(sums) - 1)
        within = np.cumsum(self.weights[part * PART : (part + 1) * PART])
        within += sums[part - 1] if part else 0.0  # (PART,)
        index = int(np.searchsorted(within, target, side="right"))
        if index == PART or part * PART + index >= vocab_size:
            return None
        below = within[index - 1] if index else (sums[part - 1] if part else -np.inf)
        too_close = min(within[index] - target, target - below) <= SLACK * sums[-1]
        return None if too_close else part * PART + index


def masked(logits: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """The logits where a token is allowed, else -inf, which no bias or penalty changes.    (V,), (V,) bool -> (V,)"""
    greedy(logits)  # raises on broken ones, those of tokens that are not allowed too
    return np.where(allowed, logits, np.float32(-np.inf))


def check_goes_on(allowed: np.ndarray, sequence: Sequence) -> None:
    """Raise UserError where all that may come is what would end the text before min_tokens.    allowed: (V,) bool"""
    if np.count_nonzero(allowed) == np.count_nonzero(allowed[list(sequence.stop_ids)]):
        raise UserError(
            f"min_tokens={sequence.params.min_tokens} contradicts structured_outputs and stop_token_ids: after "
            f"{len(sequence.output_ids)} tokens nothing but a token that ends the text may come.",
            hint="Lower min_tokens, or leave that token out of stop_token_ids.",
        )


def prefilter(x: np.ndarray, largest: float, params: SamplingParams) -> np.ndarray | None:
    """A superset of the ids that top_k and min_p keep; None if neither is set.    (V,) -> (C,) or None"""
    if params.min_p <= 0 and not 0 < params.top_k < len(x):
        return None
    floor = -np.inf
    if params.min_p > 0:
        floor = largest + params.temperature * float(np.log(params.min_p))  # lowest logit that min_p keeps
    if 0 < params.top_k < len(x):
        floor = max(floor, top_k_floor(x, params.top_k))
    if floor == -np.inf:  # fewer than k are left by a constraint
        return np.flatnonzero(x > floor)
    # Two different logits may become equal when the largest is subtracted and the temperature divides.
    return np.flatnonzero(x >= floor - SLACK * (abs(largest) + abs(largest - floor)))


def listed_logprobs(logits: np.ndarray, token: int, count: int) -> list[TokenLogprob]:
    """core's token_logprobs, which is shown only the few tokens that may be among the most likely.    logits: (V,)"""
    among = np.flatnonzero(logits >= top_k_floor(logits, count)) if 0 < count < len(logits) else None
    return token_logprobs(logits, token, count, among)


def top_k_floor(x: np.ndarray, k: int) -> float:
    """A lower bound of the k-th largest of x, and seldom much less.    x: (V,)

    The vocabulary is dealt out to groups. The k-th largest of the groups' maxima is such a bound, for each of the k
    groups that reach it holds at least one logit that does.
    """
    size = len(x) // GROUPS
    if k > size:
        return float(np.partition(x, -k)[-k])
    maxima = x[: size * GROUPS].reshape(GROUPS, size).max(axis=0)  # (size,): one per group of GROUPS logits
    return float(np.partition(maxima, -k)[-k])


def draw_nucleus(weights: np.ndarray, top_p: float, u: float) -> int | None:
    """Draw among the most likely tokens whose mass is top_p, sorting only those above a floor.    weights: (V,)

    Tokens above a floor contain the nucleus if their mass exceeds top_p; the floor is lowered until it does. None if
    most of the vocabulary would be needed.
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
    probabilities = weights[likely] / total  # (C,), exactly as the reference has them
    order = np.argsort(-probabilities, kind="stable")
    mass_before = np.cumsum(probabilities[order]) - probabilities[order]
    kept = np.sort(order[mass_before < top_p])
    if not len(kept):
        return None
    return draw(likely[kept], probabilities[kept] / probabilities[kept].sum(), u)
