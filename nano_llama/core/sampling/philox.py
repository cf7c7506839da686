"""Random numbers without a generator's state: a request's n-th number is a function of (seed, n) alone.

A generator that every draw advances would make a request's text depend on the other requests. A counter-based one
encrypts a counter under a key: the key is the seed, the counter is the position in the text. So a request gives the
same tokens alone, in a batch, after preemption, or when its continuation is computed on another machine.

The cipher is Philox4x32-10 of Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3" (SC'11), the
one of cuRAND, PyTorch's CUDA generator and Triton, in the order of words and rounds that their Random123 library fixes.

Not here: the generator of initial weights (core/init.py), and anything cryptographic.
Tests: tests/core/test_sampling_philox.py.
"""

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # the paper's M0 and M1
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # the fractions of the golden ratio and of sqrt(3), added to the key each round
ROUNDS = 10

MAX_SEED = 2**64 - 1


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Ten rounds of Philox: four 32-bit words of counter, two of key -> four random 32-bit words.

    A round multiplies two of the words to 64 bits, and mixes the high halves with the other two words and the key.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        product0 = MULTIPLIERS[0] * c0
        product1 = MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (product1 >> 32) ^ c1 ^ k0, product1 & MASK, (product0 >> 32) ^ c3 ^ k1, product0 & MASK
        k0, k1 = (k0 + KEY_STEPS[0]) & MASK, (k1 + KEY_STEPS[1]) & MASK
    return c0, c1, c2, c3


def uniform(seed: int, position: int, stream: int = 0) -> float:
    """A number in [0, 1) with 53 random bits, the same for the same (seed, position, stream) everywhere.

    seed: 0 ... 2^64 - 1 (larger ones wrap around).   position: 0 ... 2^64 - 1, here the tokens before this one.
    stream: tells apart the several numbers that one position may need; choosing a token takes stream 0.
    """
    key = (seed & MASK, (seed >> 32) & MASK)
    counter = (position & MASK, (position >> 32) & MASK, stream & MASK, (stream >> 32) & MASK)
    high, low, _, _ = philox4x32(counter, key)
    return ((high << 21) | (low >> 11)) * 2.0**-53
