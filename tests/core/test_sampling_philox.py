"""uniform(seed, position): Random123's known answers, PyTorch-free statistics, and independence of the arguments."""

import numpy as np
import pytest

from nano_llama.core.sampling.philox import MAX_SEED, philox4x32, uniform

# counter, key -> output, from the file kat_vectors of the Random123 library (philox4x32, 10 rounds)
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, expected):
    assert philox4x32(counter, key) == expected


def test_uniform_is_made_of_the_first_two_words():
    assert uniform(0, 0) == ((0x6627E8D5 << 21) | (0xE169C58D >> 11)) / 2**53


def test_uniform_is_a_function_of_its_arguments_only():
    numbers = {uniform(seed, position, stream) for seed in range(10) for position in range(10) for stream in range(3)}
    assert len(numbers) == 300
    assert uniform(3, 7) == uniform(3, 7)
    assert uniform(3, 7) != uniform(7, 3)


def test_all_64_bits_of_seed_and_position_count():
    low, high = uniform(1, 1), {uniform(1 + 2**40, 1), uniform(1, 1 + 2**40), uniform(MAX_SEED, 1)}
    assert low not in high and len(high) == 3


@pytest.mark.parametrize("axis", ["seed", "position"])
def test_neighbours_are_uniform_and_uncorrelated(axis):
    """Consecutive seeds are what people type, and consecutive positions what a text uses."""
    count = 20_000
    u = np.array([uniform(i, 5) if axis == "seed" else uniform(5, i) for i in range(count)])
    assert u.min() >= 0.0 and u.max() < 1.0
    histogram = np.bincount((u * 100).astype(int), minlength=100)
    chi_square = ((histogram - count / 100) ** 2 / (count / 100)).sum()
    assert chi_square < 99 + 5 * np.sqrt(2 * 99)  # mean 99, variance 198
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 5 / np.sqrt(count)
