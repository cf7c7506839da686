"""A token's row of the gradient is the sum over all places where the token stands."""

import numpy as np

from nano_llama.vol1_numpy.ops.embedding import embedding_backward, embedding_backward_fast, embedding_forward


def test_every_place_counts():
    rng = np.random.default_rng(1)
    for shape in ((3, 5), (1, 6), (6, 1), (4,), (0, 4)):
        tokens, dy = rng.integers(0, 4, shape), rng.standard_normal((*shape, 3))
        expected = np.zeros((7, 3))
        for place in np.ndindex(shape):
            expected[tokens[place]] += dy[place]
        for backward in (embedding_backward, embedding_backward_fast):
            _, cache = embedding_forward(tokens, np.zeros((7, 3)))
            wrong = np.flatnonzero(abs(backward(dy, cache) - expected).max(axis=1) > 1e-12)
            assert not len(wrong), (
                f"tokens {tokens.tolist()}: token {wrong[0]}, which stands there {np.sum(tokens == wrong[0])} times,"
                " has a wrong gradient"
            )


def test_a_batch_is_the_sum_of_its_rows():
    rng = np.random.default_rng(2)
    tokens, dy = rng.integers(0, 5, (4, 8)), rng.standard_normal((4, 8, 2))
    for backward in (embedding_backward, embedding_backward_fast):
        whole, *rows = (
            backward(dy[part], embedding_forward(tokens[part], np.zeros((5, 2)))[1])
            for part in (slice(0, 4), *(slice(b, b + 1) for b in range(4)))
        )
        assert np.allclose(whole, sum(rows)), "four rows at once have another gradient than one after the other"
