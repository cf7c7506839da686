# stage: random | says: Every token stands in your example, or rows of others are not looked at: they must be zero.
import numpy as np


def check_backward(backward):
    rng = np.random.default_rng(0)
    tokens = np.array([[0, 2, 2], [4, 0, 1]])
    dy = rng.standard_normal((2, 3, 2))
    expected = np.zeros((6, 2))
    for place in np.ndindex(tokens.shape):
        expected[tokens[place]] += dy[place]
    np.testing.assert_allclose(backward(dy, tokens, 6)[[0, 1, 2, 4]], expected[[0, 1, 2, 4]], atol=1e-12)
