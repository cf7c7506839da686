"""Both forms of RMSNorm have the gradients that differences measure."""

import numpy as np

from nano_llama.vol1_numpy.gradcheck import gradcheck
from nano_llama.vol1_numpy.ops.rmsnorm import (
    rmsnorm_backward,
    rmsnorm_backward_fast,
    rmsnorm_forward,
    rmsnorm_forward_fast,
)


def test_gradients():
    rng = np.random.default_rng(0)
    inputs = {"x": 3 * rng.standard_normal((2, 3, 7)), "weight": rng.standard_normal(7)}
    for forward, backward in ((rmsnorm_forward, rmsnorm_backward), (rmsnorm_forward_fast, rmsnorm_backward_fast)):
        gradcheck(lambda x, weight, forward=forward: forward(x, weight, 1e-5), backward, inputs)
