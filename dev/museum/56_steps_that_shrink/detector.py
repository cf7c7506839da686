"""With a gradient that never changes, Adam moves by one learning rate in every step, for any number of parameters."""

import numpy as np

from nano_llama.vol1_numpy.optim.adamw import AdamW


def test_a_constant_gradient_gives_constant_steps():
    params = {f"{name}.weight": np.zeros((2, 2)) for name in "abc"}
    gradients = {name: np.array([[1.0, -2.0], [0.5, 30.0]]) for name in params}
    optimizer = AdamW(params, 0.01)
    for number in range(1, 6):
        before = {name: param.copy() for name, param in params.items()}
        optimizer.step(params, gradients)
        for name, param in params.items():
            moved = abs(param - before[name])
            assert np.allclose(moved, 0.01, rtol=1e-6), f"step {number} moves a weight by {moved.max():.4g}, not 0.01"
    assert optimizer.steps == 5, f"after five steps it has counted {optimizer.steps}"
