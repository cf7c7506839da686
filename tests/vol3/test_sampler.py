"""The engine's sampler draws what core/sampling draws, for every parameter and whatever else is in the batch."""

import numpy as np
import pytest

from nano_llama.core.errors import NanoLlamaError
from nano_llama.core.sampling import SamplingParams, sample, token_logprobs
from nano_llama.vol3_engine.sampler import Sampler, listed_logprobs
from nano_llama.vol3_engine.sequence import Sequence
from nano_llama.vol3_engine.text import TextStream

STOP = list(range(0, 300, 7))
GIVEN = [
    {"temperature": 0.0},
    {"temperature": 0.0, "repetition_penalty": 1.3},
    {"temperature": 1.0},
    {"temperature": 0.05},
    {"temperature": 3.0, "top_k": 40},
    {"temperature": 0.8, "top_k": 1},
    {"temperature": 1.2, "top_p": 0.9},
    {"temperature": 1.0, "top_p": 1e-12},
    {"temperature": 0.7, "min_p": 0.05},
    {"temperature": 1.5, "min_p": 1.0},
    {"temperature": 1.0, "top_k": 50, "top_p": 0.8, "min_p": 0.01},
    {"temperature": 1.0, "presence_penalty": 0.5, "frequency_penalty": 0.3, "logit_bias": {3: 5.0}, "top_p": 0.95},
    {"temperature": 1.0, "top_k": 10**6},
    {"temperature": 0.0, "min_tokens": 4, "stop_token_ids": STOP},
    {"temperature": 1.0, "min_tokens": 4, "stop_token_ids": STOP},
    {"temperature": 1.0, "min_tokens": 9, "stop_token_ids": STOP, "top_k": 460},
    {"temperature": 0.7, "min_tokens": 9, "stop_token_ids": STOP, "top_p": 0.9, "repetition_penalty": 1.2},
    {"temperature": 0.7, "min_tokens": 9, "stop_token_ids": STOP, "min_p": 0.1},
]


class NoText:
    def push(self, token):
        return ""

    def finish(self):
        return ""


def draw_tokens(logits, sequences):
    return Sampler(logits.shape[1]).sample(logits, sequences)


def sequence(params, seed, output=()):
    made = Sequence(
        request=0, index=0, prompt_ids=[1, 2, 3], params=params, seed=seed, text=TextStream(NoText()), max_length=99
    )
    made.output_ids.extend(output)
    return made


@pytest.mark.parametrize("given", GIVEN, ids=str)
def test_every_token_is_the_references(given):
    rng = np.random.default_rng(0)
    params = SamplingParams(**given)
    for seed in range(60):
        logits = (rng.normal(size=500) * rng.choice([0.1, 1, 5])).astype(np.float32)
        if seed % 3 == 0:
            logits = np.round(logits)  # many equals
        output = rng.integers(0, 500, seed % 7).tolist()
        wanted = sample(logits, params, [1, 2, 3], output, seed=seed, end_ids=params.stop_token_ids or ())
        assert draw_tokens(logits[None], [sequence(params, seed, output)]) == [wanted]


@pytest.mark.parametrize("given", GIVEN, ids=str)
@pytest.mark.parametrize("shape", ["peaked", "flat", "equal", "nearly equal"])
def test_a_large_vocabulary_of_any_shape(given, shape):
    """5003 tokens: groups and parts that do not divide it, sums in several parts, nuclei from one token to all."""
    rng = np.random.default_rng(2)
    sampler, params = Sampler(5003), SamplingParams(**given)
    for seed in range(25):
        noise = rng.normal(size=5003)
        logits = {"peaked": 4 * noise, "flat": 0.01 * noise, "equal": 0 * noise, "nearly equal": 1 + 1e-7 * noise}[
            shape
        ]
        logits = logits.astype(np.float32)
        wanted = sample(logits, params, [1, 2, 3], [5, 5], seed=seed, end_ids=params.stop_token_ids or ())
        assert sampler.sample(logits[None], [sequence(params, seed, [5, 5])]) == [wanted]


@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_where_rounding_might_decide_the_reference_is_asked(monkeypatch, top_p):
    """A random number on the very boundary between two tokens, and just beside it."""
    logits = np.zeros(1024, np.float32)  # all equally likely: boundaries at multiples of 1/1024
    logits[512:] = -30.0 if top_p < 1 else 0.0
    params = SamplingParams(temperature=1.0, top_p=top_p)
    for place in (0, 1, 127, 128, 129, 300):
        for nudge in (-1e-15, 0.0, 1e-15):
            u = max(0.0, place / 1024 + nudge)
            monkeypatch.setattr("nano_llama.vol3_engine.sampler.uniform", lambda *_, u=u: u)
            monkeypatch.setattr("nano_llama.core.sampling.sampler.uniform", lambda *_, u=u: u)
            wanted = sample(logits, params, [1, 2, 3], [], seed=0)
            assert draw_tokens(logits[None], [sequence(params, 0)]) == [wanted], f"u = {u}"


@pytest.mark.parametrize("count", [0, 1, 5, 20, 200, 5003, 10**6])
@pytest.mark.parametrize("shape", ["peaked", "rounded", "equal", "few"])
def test_logprobs_are_the_references(count, shape):
    rng = np.random.default_rng(3)
    for token in (0, 5, 5002):
        noise = rng.normal(size=5003).astype(np.float32)
        logits = {"peaked": 4 * noise, "rounded": np.round(noise), "equal": 0 * noise, "few": noise[:50]}[shape]
        token = min(token, len(logits) - 1)
        assert listed_logprobs(logits, token, count) == token_logprobs(logits, token, count)


def test_batch_invariance():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(len(GIVEN), 300)).astype(np.float32)
    sequences = [sequence(SamplingParams(**given), seed) for seed, given in enumerate(GIVEN)]
    together = draw_tokens(logits, sequences)
    assert together == [draw_tokens(logits[i : i + 1], [one])[0] for i, one in enumerate(sequences)]
    assert together[::-1] == draw_tokens(logits[::-1], sequences[::-1])


@pytest.mark.parametrize(
    "given", [{"temperature": 0.0}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 5}], ids=str
)
def test_nan_is_an_error_and_no_token(given):
    logits = np.zeros((2, 50), np.float32)
    logits[1, 7] = np.nan
    with pytest.raises(NanoLlamaError, match="largest logit"):
        listed_logprobs(logits[1], 3, 2)
    with pytest.raises(NanoLlamaError, match="largest logit"):
        draw_tokens(logits, [sequence(SamplingParams(**given), 0)] * 2)
