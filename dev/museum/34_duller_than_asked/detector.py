"""Top_p keeps the smallest set of likeliest tokens whose mass reaches top_p: neither fewer nor more."""

import numpy as np

from nano_llama.core.sampling import SamplingParams
from nano_llama.core.sampling.sampler import candidates


def kept(probabilities, top_p):
    with np.errstate(divide="ignore"):
        ids, mass = candidates(np.log(probabilities), SamplingParams(temperature=1.0, top_p=top_p))
    assert np.isclose(mass.sum(), 1)
    return ids.tolist()


def test_the_token_that_reaches_the_mass_stays():
    assert kept([0.5, 0.41, 0.09], 0.9) == [0, 1], "0.5 and 0.41 are kept for 0.9"
    assert kept([0.5, 0.41, 0.09], 0.3) == [0], "the likeliest is always kept"


def test_a_mass_that_is_reached_exactly_is_enough():
    assert kept([0.5, 0.25, 0.125, 0.125], 0.75) == [0, 1], "0.5 and 0.25 are 0.75"


def test_it_is_the_smallest_set():
    rng = np.random.default_rng(0)
    for _ in range(200):
        probabilities = rng.dirichlet(np.full(rng.integers(2, 12), 0.7))
        top_p = rng.uniform(0.05, 0.98)
        mass = np.sort(probabilities[kept(probabilities, top_p)])
        assert mass.sum() >= top_p - 1e-12, f"the kept tokens hold {mass.sum():.3f}, less than top_p = {top_p:.3f}"
        assert mass[1:].sum() < top_p + 1e-12, f"without the last one they hold {mass[1:].sum():.3f} of {top_p:.3f}"
