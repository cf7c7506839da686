"""What each step of sampling leaves (core/sampling/cuts.py), against the sampler and against plain formulas."""

import numpy as np
import pytest

from nano_llama.core.sampling import SamplingParams
from nano_llama.core.sampling.cuts import cuts
from nano_llama.core.sampling.philox import uniform
from nano_llama.core.sampling.sampler import candidates, penalized, sample

PARAMS = [
    SamplingParams(),
    SamplingParams(temperature=0),
    SamplingParams(temperature=0.7, top_k=20, top_p=0.9, min_p=0.01),
    SamplingParams(temperature=1.5, top_p=0.5, repetition_penalty=1.3, frequency_penalty=0.5, presence_penalty=0.2),
    SamplingParams(top_k=1000, logit_bias={3: 5.0, 7: -100.0}),
    SamplingParams(min_p=0.2, min_tokens=9),
]


def logits_of(seed: int, size: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, size).astype(np.float32)


@pytest.mark.parametrize("params", PARAMS, ids=str)
def test_the_last_step_is_what_the_sampler_draws_from(params):
    for seed in range(40):
        logits, prompt, output = logits_of(seed), [1, 2, 3], [3, 4, 4]
        found = cuts(logits, params, prompt, output, end_ids={0})
        u = uniform(seed, len(prompt) + len(output))
        drawn = found.draw(u)
        assert drawn.token == sample(logits, params, prompt, output, seed=seed, end_ids={0})
        assert drawn.start <= u < drawn.end
        if not params.is_greedy:
            ids, probabilities = candidates(penalized(logits, params, prompt, output, {0}), params)
            assert np.array_equal(found.left.ids, ids) and np.array_equal(found.left.probabilities, probabilities)


def test_each_step_keeps_less_and_says_how_much():
    logits = logits_of(5)
    found = cuts(logits, PARAMS[2], [1], [])
    assert [step.name for step in found.steps] == ["model", "temperature", "min_p", "top_k", "top_p"]
    softmax = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum()
    np.testing.assert_allclose(found.steps[0].probabilities, softmax, rtol=1e-12)
    for before, after in zip(found.steps, found.steps[1:], strict=False):
        assert set(after.ids) <= set(before.ids) and after.probabilities.sum() == pytest.approx(1)
        p = dict(zip(before.ids, before.probabilities, strict=True))
        assert after.mass == pytest.approx(sum(p[number] for number in after.ids))
    assert len(found.steps[3].ids) == 20 and found.steps[4].mass >= 0.9


def test_a_constraint_comes_first():
    logits, allowed = logits_of(6), np.zeros(200, bool)
    allowed[[5, 9, 11]] = True
    found = cuts(logits, SamplingParams(top_k=2), [1], [], allowed=allowed)
    assert [(step.name, len(step.ids)) for step in found.steps] == [("model", 200), ("constraint", 3), ("top_k", 2)]
    assert set(found.left.ids) < {5, 9, 11} and np.isneginf(found.adjusted).sum() == 197
    softmax = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum()
    assert found.steps[1].mass == pytest.approx(softmax[[5, 9, 11]].sum())


def test_min_tokens_keeps_the_end_away():
    found = cuts(logits_of(7), SamplingParams(min_tokens=2), [1], [2], end_ids={4})
    assert found.steps[-1].name == "penalties" and 4 not in found.left.ids
    assert cuts(logits_of(7), SamplingParams(min_tokens=2), [1], [2, 3], end_ids={4}).steps[-1].name == "model"
