"""A query that may attend to nothing gets zeros, forward and backward, and leaves all other rows as they are."""

import numpy as np

from nano_llama.vol1_numpy.ops.attention import attention_backward, attention_forward
from nano_llama.vol1_numpy.ops.softmax import softmax_backward, softmax_forward
from nano_llama.vol1_numpy.ops.tiled_attention import tiled_attention_backward, tiled_attention_forward


def test_softmax_of_a_row_without_a_choice():
    x = np.array([[1.0, 2.0, -np.inf], [-np.inf] * 3, [900.0, -900.0, 0.0]])
    y, cache = softmax_forward(x)
    assert np.isfinite(y).all(), "a row without a choice gives no numbers"
    assert (y[1] == 0).all(), f"a row without a choice chooses all the same: {y[1]}"
    assert np.allclose(y[[0, 2]].sum(axis=1), 1)
    assert np.isfinite(softmax_backward(np.ones_like(x), cache)).all()


def test_attention_of_a_query_that_sees_nothing():
    rng = np.random.default_rng(0)
    q, k, v, dout = (rng.standard_normal((1, heads, 5, 4)) for heads in (2, 1, 1, 2))
    mask = np.tri(5, dtype=bool)
    mask[2] = False
    pairs = ((attention_forward, attention_backward), (tiled_attention_forward, tiled_attention_backward))
    for forward, backward in pairs:
        out, cache = forward(q, k, v, mask)
        gradients = backward(dout, cache)
        name = forward.__name__
        assert all(np.isfinite(array).all() for array in (out, *gradients)), f"{name}: a masked row gives NaN"
        assert (out[:, :, 2] == 0).all(), f"{name}: a query that sees nothing has an output"
        assert (gradients[0][:, :, 2] == 0).all(), f"{name}: and a gradient"
        others = [0, 1, 3, 4]
        alone, _ = forward(q[:, :, others], k, v, mask[others])
        assert np.allclose(out[:, :, others], alone), f"{name}: the other rows change"
