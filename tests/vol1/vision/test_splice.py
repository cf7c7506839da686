"""Rows of images among the text's embeddings."""

import numpy as np

from nano_llama.vol1_numpy import gradcheck
from nano_llama.vol1_numpy.vision.splice import splice_backward, splice_forward

IS_IMAGE = np.array([[0, 1, 1, 0], [1, 1, 1, 1]], bool)


def test_rows_come_in_reading_order():
    text, rows = np.zeros((2, 4, 1)), np.arange(1.0, 7).reshape(3, 2, 1)
    x, _ = splice_forward(text, rows, IS_IMAGE)
    assert x[..., 0].tolist() == [[0, 1, 2, 0], [3, 4, 5, 6]]
    assert not text.any()  # the text itself stays as it was


def test_differences():
    rng = np.random.default_rng(0)
    inputs = {"text": rng.standard_normal((2, 4, 3)), "rows": rng.standard_normal((3, 2, 3)), "is_image": IS_IMAGE}
    gradcheck(splice_forward, splice_backward, inputs)


def test_every_gradient_arrives_once():
    dx = np.random.default_rng(1).standard_normal((2, 4, 3))
    dtext, drows = splice_backward(dx, (IS_IMAGE, (3, 2, 3)))
    assert not dtext[IS_IMAGE].any()
    np.testing.assert_array_equal(dtext[~IS_IMAGE], dx[~IS_IMAGE])
    np.testing.assert_array_equal(drows.reshape(-1, 3), dx[IS_IMAGE])
