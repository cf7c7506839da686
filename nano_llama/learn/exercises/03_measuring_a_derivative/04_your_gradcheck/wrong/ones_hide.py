# stage: random | says: A dy of ones hides mistakes where the outputs always add up to 1: draw dy at random.
import numpy as np

H = 1e-3


def check(forward, backward, x):
    y, cache = forward(x)
    dy = np.ones(np.shape(y))
    dx = backward(dy, cache)
    measured = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        for move, weight in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
            moved = x.copy()
            moved[index] += move * H
            measured[index] += weight * np.sum(forward(moved)[0] * dy) / (12 * H)
    assert np.shape(dx) == x.shape, f"dx has shape {np.shape(dx)}"
    assert np.max(np.abs(dx - measured)) <= 1e-5 * np.max(np.abs(measured)) + 1e-10, "dx is not the slope"
