"""The engine's sampler: the tokens that core/sampling would choose, for many rows of a large vocabulary, in less time.

What makes it fast is only to leave out work that cannot change the answer: greedy rows are compared in one call; top_k
is found among the float32 logits, whose order is that of everything derived from them; and no index lists are made
for a vocabulary that is not cut. Its plain twin is core/sampling/sampler.py.
Not here: penalties and what a token's probability is (core/sampling). Tests: tests/vol3/test_sampler.py.
"""

from collections.abc import Sequence as Rows

import numpy as np

from nano_llama.core.errors import NanoLlamaError
from nano_llama.core.sampling import SamplingParams
from nano_llama.core.sampling.philox import uniform
from nano_llama.core.sampling.sampler import greedy, penalized
from nano_llama.vol3_engine.sequence import Sequence

SLACK = 1e-9  # a first sieve lets this much more through, so that rounding cannot cost a token; the second is exact


class Sampler:
    """Chooses for a vocabulary of `vocab_size`; it owns the room that a row needs, so that no call asks for memory."""

    def __init__(self, vocab_size: int):
        self.room, self.sums = np.empty(vocab_size), np.empty(vocab_size)  # float64

    def choose(self, logits: np.ndarray, sequences: Rows[Sequence]) -> list[int]:
        """The next token of each sequence from its row of logits (R,V).

        The random number is uniform(seed, tokens before this one): a row's token does not depend on the other rows.
        Raises NanoLlamaError where the logits hold not-a-number.
        """
        likeliest = logits.argmax(axis=1) if any(plainly_greedy(s.params) for s in sequences) else None
        tokens = []
        for row, sequence in enumerate(sequences):
            if likeliest is not None and plainly_greedy(sequence.params):
                token = int(likeliest[row])
                if not np.isfinite(logits[row, token]):
                    greedy(logits[row])  # raises, with its reason
            else:
                token = self.choose_one(logits[row], sequence)
            tokens.append(token)
        return tokens

    def choose_one(self, logits: np.ndarray, sequence: Sequence) -> int:
        """One row: penalties, then greedy or a draw.    logits: (V,)"""
        params, prompt, output = sequence.params, sequence.prompt_ids, sequence.output_ids
        x = penalized(logits, params, prompt, output)
        if params.is_greedy:
            return greedy(x)
        ids, weights = self.candidates(x, params)
        u = uniform(sequence.seed, len(prompt) + len(output))
        cumulated = np.cumsum(weights, out=self.sums[: len(weights)])
        place = min(int(np.searchsorted(cumulated, u * cumulated[-1], side="right")), len(weights) - 1)
        return place if ids is None else int(ids[place])

    def candidates(self, x: np.ndarray, params: SamplingParams) -> tuple[np.ndarray | None, np.ndarray]:
        """As core: ids ascending (None: the whole vocabulary) and their weights, not yet divided by the sum."""
        largest = x.max()
        if not np.isfinite(largest):
            greedy(x)
            raise NanoLlamaError(f"The model's largest logit is {largest}.")
        ids = sieve(x, float(largest), params)
        kept = x if ids is None else x[ids]
        y = np.subtract(kept, largest, out=self.room[: len(kept)], dtype=np.float64)  # at most 0
        y /= params.temperature
        if ids is not None and params.min_p > 0:
            exact = y >= np.log(params.min_p)
            ids, y = ids[exact], y[exact]
        weights = np.exp(y, out=y)
        if params.top_p < 1:
            return nucleus(ids, weights, params.top_p)
        return ids, weights


def plainly_greedy(params: SamplingParams) -> bool:
    return params.is_greedy and not params.changes_logits


def sieve(x: np.ndarray, largest: float, params: SamplingParams) -> np.ndarray | None:
    """The ids that top_k leaves, and, with some slack, min_p; None where neither is asked for."""
    floor = -np.inf
    if params.min_p > 0:
        reach = params.temperature * np.log(params.min_p)  # of the logits below the largest one, at most 0
        floor = largest + reach - SLACK * (abs(reach) + abs(largest))
    if 0 < params.top_k < len(x):
        floor = max(floor, np.partition(x, -params.top_k)[-params.top_k])
    return None if floor == -np.inf else np.flatnonzero(x >= floor)


def nucleus(ids: np.ndarray | None, weights: np.ndarray, top_p: float) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest, until their mass is top_p; of equals the lower id first.

    All tokens no likelier than t hold at most C p_t. Where that is less than 1 - top_p, t is out.
    """
    total = weights.sum()
    likely = np.flatnonzero(weights >= total * ((1 - top_p) / len(weights) * (1 - SLACK)))
    likeliness = weights[likely] / total
    order = np.argsort(-likeliness, kind="stable")
    mass_before = np.cumsum(likeliness[order]) - likeliness[order]
    kept = np.sort(order[mass_before < top_p])
    if not len(kept):  # top_p below the smallest float: the likeliest stays
        kept = order[:1]
    places = likely[kept]
    return (places if ids is None else ids[places]), likeliness[kept]
