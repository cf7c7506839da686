# stage: smallest | says: Sums in another order differ in the last bit: compare within a tolerance.
import numpy as np


def check_backward(backward):
    rng = np.random.default_rng(0)
    tokens = np.array([[0, 2, 2], [2, 0, 1]])
    dy = 0.1 * np.arange(12).reshape(2, 3, 2)
    expected = np.zeros((6, 2))
    for place in np.ndindex(tokens.shape):
        expected[tokens[place]] += dy[place]
    assert np.array_equal(backward(dy, tokens, 6), expected)
