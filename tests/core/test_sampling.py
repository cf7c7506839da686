"""The reference sampler against transformers' logits processors, plain definitions, and a chi-square test."""

import numpy as np
import pytest

from nano_llama.core.errors import NanoLlamaError
from nano_llama.core.sampling import SamplingParams, candidates, greedy, penalized, sample, token_logprobs, uniform
from nano_llama.core.sampling.sampler import draw

V = 200


def random_logits(seed: int, size: int = V) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 3.0, size).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x.astype(np.float64) - x.max())
    return weights / weights.sum()


def dense(ids: np.ndarray, probabilities: np.ndarray, size: int = V) -> np.ndarray:
    full = np.zeros(size)
    full[ids] = probabilities
    return full


# -- penalties and biases ---------------------------------------------------------------------------------------------


def test_repetition_penalty_is_transformers():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    logits, prompt, output = random_logits(0), [3, 5, 5, 9], [7, 3, 150]
    reference = transformers.RepetitionPenaltyLogitsProcessor(1.3)
    expected = reference(torch.tensor([prompt + output]), torch.from_numpy(logits)[None])[0].numpy()
    ours = penalized(logits, SamplingParams(repetition_penalty=1.3), prompt, output)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    assert (ours != logits).sum() == 5


def test_frequency_and_presence_penalties_count_the_output_only():
    logits = random_logits(1)
    params = SamplingParams(frequency_penalty=0.5, presence_penalty=0.25)
    expected = logits.astype(np.float64)
    expected[7] -= 3 * 0.5 + 0.25
    expected[8] -= 1 * 0.5 + 0.25
    np.testing.assert_allclose(penalized(logits, params, [1, 2, 7], [7, 8, 7, 7]), expected, rtol=1e-12)


def test_bias_comes_before_the_repetition_penalty():
    logits = np.array([1.0, -1.0, 0.0])
    params = SamplingParams(logit_bias={0: -3.0, 2: 4.0}, repetition_penalty=2.0)
    np.testing.assert_allclose(penalized(logits, params, [0, 2], []), [-4.0, -1.0, 2.0])


@pytest.mark.parametrize("new", [0, 4, 5, 6])
def test_min_tokens_is_transformers(new):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    logits, prompt, output, ends = random_logits(0), [3, 5], list(range(20, 20 + new)), {7, 9}
    logits[[7, 9]] = 50.0
    reference = transformers.MinNewTokensLengthLogitsProcessor(len(prompt), 5, sorted(ends), device="cpu")
    expected = reference(torch.tensor([prompt + output]), torch.from_numpy(logits)[None])[0].numpy()
    params = SamplingParams(min_tokens=5)
    np.testing.assert_array_equal(penalized(logits, params, prompt, output, ends), expected)
    drawn = {sample(logits, params, prompt, output, seed=seed, end_ids=ends) for seed in range(40)}
    assert drawn <= ends if new >= 5 else not drawn & ends


def test_no_bias_or_penalty_brings_a_masked_token_back():
    params = SamplingParams(min_tokens=1, logit_bias={1: 100.0}, repetition_penalty=0.1, presence_penalty=-2.0)
    x = penalized(np.array([0.0, 3.0]), params, [1], [], end_ids=[1])
    assert x.tolist() == [0.0, -np.inf] and sample(np.array([0.0, 3.0]), params, [1], [], end_ids=[1]) == 0


def test_a_token_of_probability_zero_is_never_drawn():
    rng, ids = np.random.default_rng(0), np.array([4, 5, 6, 7])
    for largest in (0.5, np.nextafter(0.5, 1), 1.0, np.nextafter(1.0, 2), *rng.uniform(0, 2, 2000)):
        assert draw(ids, np.array([0.0, largest / 4, largest, 0.0]), 1 - 2.0**-53) == 6
        assert draw(ids, np.array([0.0, largest / 4, largest, 0.0]), 0.0) == 5


def test_without_penalties_the_logits_are_untouched_and_with_them_copied():
    logits = random_logits(2)
    before = logits.copy()
    assert penalized(logits, SamplingParams(), [1], [2]) is logits
    penalized(logits, SamplingParams(repetition_penalty=2.0, logit_bias={0: 5.0}), [1], [2])
    np.testing.assert_array_equal(logits, before)


# -- the shape of the distribution ------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("min_p", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("top_k", [0, 1, 17, V + 5])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.05])
def test_candidates_are_transformers(temperature, min_p, top_k, top_p):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    logits = random_logits(3)
    x = torch.from_numpy(logits).double()[None]
    ids = torch.zeros(1, 1, dtype=torch.long)
    x = transformers.TemperatureLogitsWarper(temperature)(ids, x)
    if min_p > 0:
        x = transformers.MinPLogitsWarper(min_p)(ids, x)
    if top_k > 0:
        x = transformers.TopKLogitsWarper(min(top_k, V))(ids, x)
    if top_p < 1:
        x = transformers.TopPLogitsWarper(top_p)(ids, x)
    expected = torch.softmax(x, -1)[0].numpy()
    params = SamplingParams(temperature=temperature, min_p=min_p, top_k=top_k, top_p=top_p)
    ours = dense(*candidates(logits, params))
    assert ((ours > 0) == (expected > 0)).all()
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-15)


def test_top_k_keeps_equals_of_the_last_and_top_p_prefers_the_lower_id():
    logits = np.array([0.0, 2.0, 2.0, 1.0, 2.0])
    assert candidates(logits, SamplingParams(top_k=2))[0].tolist() == [1, 2, 4]
    assert candidates(logits, SamplingParams(top_p=0.5))[0].tolist() == [1, 2]


@pytest.mark.parametrize("temperature", [1e-300, 1e-5, 1e5])
def test_extreme_temperatures_do_not_overflow(temperature):
    logits = np.array([5.0, 80.0, -1e30, 79.0], np.float32)
    ids, probabilities = candidates(logits, SamplingParams(temperature=temperature))
    assert np.isfinite(probabilities).all() and abs(probabilities.sum() - 1) < 1e-12
    if temperature < 1:
        assert dense(ids, probabilities, 4).argmax() == 1 and probabilities.max() == 1


def test_banned_tokens_are_never_drawn():
    logits = np.array([-np.inf, 0.0, -np.inf, 0.0])
    ids, probabilities = candidates(logits, SamplingParams())
    np.testing.assert_allclose(dense(ids, probabilities, 4), [0, 0.5, 0, 0.5])
    assert {draw(ids, probabilities, u) for u in (0.0, 0.49, 0.51, 1 - 2**-53)} == {1, 3}


# -- the draw ---------------------------------------------------------------------------------------------------------


def test_greedy_takes_the_lowest_of_equal_ids():
    assert greedy(np.array([1.0, 3.0, 3.0, 0.0])) == 1
    assert sample(np.array([1.0, 3.0, 3.0, 0.0]), SamplingParams(temperature=0.0), [0], []) == 1
    assert sample(np.array([1.0, 3.0, 3.0, 0.0]), SamplingParams(temperature=0.0, repetition_penalty=4.0), [1], []) == 2


@pytest.mark.parametrize("logits", [[1.0, np.nan, 2.0], [np.inf, 1.0, 2.0], [-np.inf] * 3])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_broken_logits_are_named(logits, temperature):
    with pytest.raises(NanoLlamaError, match="largest logit is"):
        sample(np.array(logits), SamplingParams(temperature=temperature), [0], [])


def test_draw_inverts_the_distribution_function():
    ids, probabilities = np.array([4, 6, 9]), np.array([0.25, 0.5, 0.25])
    assert [draw(ids, probabilities, u) for u in (0.0, 0.2499, 0.25, 0.7499, 0.75, 1 - 2**-53)] == [4, 4, 6, 6, 9, 9]


@pytest.mark.parametrize("axis", ["seed", "position"])
def test_samples_follow_the_distribution(axis):
    """Chi-square over 20,000 draws with consecutive seeds, or at consecutive positions of one seed."""
    logits = np.random.default_rng(4).normal(0.0, 1.0, 12)
    params = SamplingParams(temperature=0.8, top_k=10, top_p=0.95)
    count = 20_000
    ids, probabilities = candidates(logits, params)
    numbers = (uniform(i, 3) if axis == "seed" else uniform(3, i) for i in range(count))
    observed = np.bincount([draw(ids, probabilities, u) for u in numbers], minlength=12)

    scaled = softmax(logits / 0.8)  # the distribution by its definition, written anew
    order = np.argsort(-scaled)[:10]
    p = scaled[order] / scaled[order].sum()
    order = order[np.cumsum(p) - p < 0.95]
    expected = np.zeros(12)
    expected[order] = scaled[order] / scaled[order].sum() * count
    assert observed[expected == 0].sum() == 0
    allowed = expected > 0
    chi_square = ((observed - expected)[allowed] ** 2 / expected[allowed]).sum()
    freedom = allowed.sum() - 1
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


def test_a_sample_depends_on_its_seed_and_position_only():
    logits, params = random_logits(5), SamplingParams(seed=99)
    first = sample(logits, params, [1, 2, 3], [4], seed=11)
    assert sample(logits, params, [9, 9], [9, 9], seed=11) == first  # the same position, other tokens before it
    by_seed = {sample(logits, params, [1, 2, 3], [4], seed=seed) for seed in range(50)}
    by_position = {sample(logits, params, [1] * length, [], seed=11) for length in range(1, 50)}
    assert len(by_seed) > 5 and len(by_position) > 5


# -- log-probabilities ------------------------------------------------------------------------------------------------


def test_logprobs_are_the_models_own():
    torch = pytest.importorskip("torch")
    logits = random_logits(6)
    reference = torch.log_softmax(torch.from_numpy(logits).double(), -1)
    values, ids = reference.topk(5)
    entries = token_logprobs(logits, 42, 5)
    assert [entry.token for entry in entries] == [42, *ids.tolist()]
    np.testing.assert_allclose([entry.logprob for entry in entries[1:]], values.numpy(), rtol=1e-12)
    assert entries[0].logprob == pytest.approx(float(reference[42]), rel=1e-12)
    assert entries[0].rank == int((reference >= reference[42]).sum())
    assert [entry.rank for entry in entries[1:]] == [1, 2, 3, 4, 5]


def test_the_chosen_token_is_listed_once_and_more_than_the_vocabulary_is_all_of_it():
    logits = np.array([1.0, 2.0, 2.0, 0.0])
    assert [entry.token for entry in token_logprobs(logits, 2, 2)] == [2, 1]
    assert [entry.token for entry in token_logprobs(logits, 3, 0)] == [3]
    assert [entry.token for entry in token_logprobs(logits, 0, 99)] == [0, 1, 2, 3]


@pytest.mark.parametrize("count", [1, 3, 7])
def test_the_smallest_top_p_of_equals_keeps_one(count):
    ids, probabilities = candidates(np.zeros(count), SamplingParams(top_p=1e-17))
    assert (ids.tolist(), probabilities.tolist()) == ([0], [1.0])
