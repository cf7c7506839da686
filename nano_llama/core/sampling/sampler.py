"""Logits -> token, in plain NumPy: the reference that every engine's sampler is compared with.

One request at a time, in float64, in the order of vLLM's sampler (vllm/v1/sample/sampler.py):

    logits -> min_tokens, logit_bias -> repetition, frequency, presence penalties -> temperature -> min_p -> top_k
           -> top_p -> token

Tests: tests/core/test_sampling.py, against transformers' logits processors and a chi-square test.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from nano_llama.core.errors import NanoLlamaError
from nano_llama.core.sampling.params import SamplingParams
from nano_llama.core.sampling.philox import uniform


def sample(
    logits: np.ndarray,
    params: SamplingParams,
    prompt_ids: Sequence[int],
    output_ids: Sequence[int],
    *,
    seed: int = 0,
    end_ids: Collection[int] = (),
) -> int:
    """Choose the token that follows prompt_ids + output_ids.    logits: (V,), of any float type

    The random number is uniform(seed, position), where position counts the tokens before the new one; params.seed is
    not read, since sample i of n has its own. end_ids: the ids that end this text; they do not come before min_tokens.
    Raises NanoLlamaError where the logits hold a NaN.
    """
    adjusted = penalized(logits, params, prompt_ids, output_ids, end_ids)
    if params.is_greedy:
        return greedy(adjusted)
    ids, probabilities = candidates(adjusted, params)
    return draw(ids, probabilities, uniform(seed, len(prompt_ids) + len(output_ids)))


def penalized(
    logits: np.ndarray,
    params: SamplingParams,
    prompt_ids: Sequence[int],
    output_ids: Sequence[int],
    end_ids: Collection[int] = (),
) -> np.ndarray:
    """The logits after bias and penalties, float64; the input itself where the request asks for none.    (V,) -> (V,)

    min_tokens          -inf, for t in end_ids, while the output has fewer             (vLLM)
    logit_bias          x_t + b_t                                                      (OpenAI's API)
    repetition_penalty  x_t / r if x_t > 0 else x_t * r, for t in prompt or output     (Keskar et al. 2019, CTRL, 4.1)
    frequency_penalty   x_t - f * (times t occurs in the output)                       (OpenAI's API)
    presence_penalty    x_t - p * (1 if t occurs in the output)                        (OpenAI's API)
    """
    too_short = len(output_ids) < params.min_tokens and bool(end_ids)
    if not too_short and not params.changes_logits:
        return logits
    x = np.array(logits, np.float64)  # (V,), a copy
    if too_short:
        x[list(end_ids)] = -np.inf  # which no bias or penalty changes
    for token, amount in (params.logit_bias or {}).items():
        x[token] += amount
    if params.repetition_penalty != 1.0:
        seen = np.fromiter({*prompt_ids, *output_ids}, np.int64)
        x[seen] = np.where(x[seen] > 0, x[seen] / params.repetition_penalty, x[seen] * params.repetition_penalty)
    if output_ids and (params.frequency_penalty or params.presence_penalty):
        counts = Counter(output_ids)
        x[list(counts)] -= params.frequency_penalty * np.array(list(counts.values())) + params.presence_penalty
    return x


def greedy(logits: np.ndarray) -> int:
    """The id of the largest logit, of ties the lowest.    logits: (V,)"""
    token = int(np.argmax(logits))  # NumPy takes the first of ties; a NaN would win
    _check_finite(logits[token])
    return token


def candidates(logits: np.ndarray, params: SamplingParams) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that may be drawn, ids ascending, and their probabilities.    (V,) -> (C,) int64, (C,) float64

    With y = (x - max x) / temperature and p = softmax(y) over the tokens still in:
    min_p (Nguyen et al. 2024):    keeps p_t >= min_p * max p, that is y_t >= log(min_p)
    top_k (Fan et al. 2018):       keeps y_t >= the k-th largest y; ties with the k-th all stay
    top_p (Holtzman et al. 2019):  from the most likely down (ties: the lower id first), keeps a token while the mass
                                   before it is below top_p; so the most likely always stays
    The result is renormalized.
    """
    x = np.asarray(logits, np.float64)
    largest = x.max()
    _check_finite(largest)
    with np.errstate(over="ignore"):  # a tiny temperature may send all others to -inf, which is what it asks for
        y = (x - largest) / params.temperature  # (V,), at most 0: exp cannot overflow
    ids = np.flatnonzero(y > -np.inf)  # all but those that min_tokens or a constraint excludes
    if params.min_p > 0:
        ids = ids[y[ids] >= np.log(params.min_p)]
    if 0 < params.top_k < len(ids):
        threshold = np.partition(y[ids], -params.top_k)[-params.top_k]
        ids = ids[y[ids] >= threshold]
    weights = np.exp(y[ids])  # (C,)
    probabilities = weights / weights.sum()
    if params.top_p < 1:
        # All tokens no likelier than t hold at most C * p_t. Where that is less than 1 - top_p, the mass before t is
        # top_p at least, so t is out: which spares the sort a long tail.
        likely = np.flatnonzero(probabilities >= (1 - params.top_p) / len(ids))
        order = likely[np.argsort(-probabilities[likely], kind="stable")]
        mass_before = np.cumsum(probabilities[order]) - probabilities[order]
        kept = np.sort(order[mass_before < params.top_p])
        ids, probabilities = ids[kept], probabilities[kept] / probabilities[kept].sum()
    return ids, probabilities


def draw(ids: np.ndarray, probabilities: np.ndarray, u: float) -> int:
    """Invert the distribution function: the first token whose cumulated probability exceeds u.    u in [0, 1)"""
    cumulated = np.cumsum(probabilities)
    # u is at most 1 - 2^-53, so the product is below the total however it is rounded, and some sum exceeds it.
    return int(ids[np.searchsorted(cumulated, u * cumulated[-1], side="right")])


class TokenLogprob(NamedTuple):
    """A token's natural log-probability under the model, and its rank (1: the most likely)."""

    token: int
    logprob: float
    rank: int


def token_logprobs(logits: np.ndarray, token: int, count: int, among: np.ndarray | None = None) -> list[TokenLogprob]:
    """log p = x - log(sum(exp(x))) of `token`, then of the `count` most likely (not `token` again).    logits: (V,)

    `logits` are the model's own, before bias, penalties and temperature (vLLM's "raw_logprobs"). A token's rank is the
    number of tokens at least as likely as it, as in vLLM; the most likely are listed in descending order, ties by
    ascending id. among: ids, ascending, that are known to hold the most likely and all of their equals; None: all.
    """
    x = np.asarray(logits, np.float64)
    largest = x.max()
    _check_finite(largest)
    logprobs = x - (largest + np.log(np.exp(x - largest).sum()))  # (V,)
    chosen = TokenLogprob(token, float(logprobs[token]), int((x >= x[token]).sum()))
    count = min(count, len(x))
    if count == 0:
        return [chosen]
    ids = np.arange(len(x)) if among is None else among
    threshold = np.partition(x[ids], -count)[-count]
    ids = ids[x[ids] >= threshold]  # ascending, so that a stable sort keeps the lower of equal ids first
    ids = ids[np.argsort(-x[ids], kind="stable")][:count]
    likeliest = [TokenLogprob(int(i), float(logprobs[i]), rank) for rank, i in enumerate(ids, start=1)]
    return [chosen, *(entry for entry in likeliest if entry.token != token)]


def _check_finite(largest: float) -> None:
    if not np.isfinite(largest):
        raise NanoLlamaError(
            f"The model's largest logit is {largest}: its weights or its arithmetic are broken.",
            hint='Load it with dtype="float32"; if that does not help, the file is damaged or the training diverged.',
        )
