# stage: random | says: Your batch has one sequence.
import numpy as np


def check_backward(backward):
    rng = np.random.default_rng(0)
    tokens = np.array([[0, 2, 2, 0, 4]])
    dy = rng.standard_normal((1, 5, 2))
    expected = np.zeros((6, 2))
    for place in np.ndindex(tokens.shape):
        expected[tokens[place]] += dy[place]
    np.testing.assert_allclose(backward(dy, tokens, 6), expected, atol=1e-12)
