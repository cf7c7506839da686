"""Both forms of SwiGLU have the gradients that differences measure."""

import numpy as np

from nano_llama.vol1_numpy.gradcheck import gradcheck
from nano_llama.vol1_numpy.ops.swiglu import (
    swiglu_backward,
    swiglu_backward_fast,
    swiglu_forward,
    swiglu_forward_fast,
)


def test_gradients():
    rng = np.random.default_rng(0)
    inputs = {"gate": 2 * rng.standard_normal((3, 5)), "up": rng.standard_normal((3, 5))}
    for forward, backward in ((swiglu_forward, swiglu_backward), (swiglu_forward_fast, swiglu_backward_fast)):
        gradcheck(forward, backward, inputs)
