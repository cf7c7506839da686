"""Patches: unfold is a permutation of pixels, and with the matrix it is a convolution."""

import numpy as np
import pytest

from helpers.op_references import relative_error
from nano_llama.vol1_numpy import gradcheck
from nano_llama.vol1_numpy.vision.patches import (
    patch_embedding_backward,
    patch_embedding_forward,
    unfold_backward,
    unfold_forward,
)


def test_a_patch_is_read_channel_by_channel_and_line_by_line():
    image = np.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    rows, _ = unfold_forward(image, 2)
    assert rows.shape == (2, 4, 12)
    for channel in range(3):
        np.testing.assert_array_equal(rows[1, 2, 4 * channel : 4 * channel + 4], image[1, channel, 2:4, 0:2].ravel())


@pytest.mark.parametrize("patch_size", [1, 2, 3, 4, 6])
def test_unfold_differences(patch_size):
    image = np.random.default_rng(0).standard_normal((2, 3, 6, 6))
    gradcheck(unfold_forward, unfold_backward, [image, patch_size], wrt=["pixel_values"])
    rows, cache = unfold_forward(image, patch_size)
    image[:, :, 6 // patch_size * patch_size :] = image[..., 6 // patch_size * patch_size :] = 0  # in no patch
    np.testing.assert_array_equal(unfold_backward(rows, cache), image)  # a permutation: back is the inverse


def random_inputs(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "pixel_values": rng.standard_normal((2, 3, 6, 6)), "weight": rng.standard_normal((5, 3, 2, 2)),
        "bias": rng.standard_normal(5), "position_embedding": rng.standard_normal((9, 5)),
    }  # fmt: skip


def test_patch_embedding_differences():
    gradcheck(patch_embedding_forward, patch_embedding_backward, random_inputs())


@pytest.mark.parametrize("left_over", [0, 1])
def test_it_is_a_convolution(left_over):
    torch = pytest.importorskip("torch")
    inputs = random_inputs(1)
    inputs["pixel_values"] = np.pad(inputs["pixel_values"], [(0, 0)] * 2 + [(0, left_over)] * 2, constant_values=9.0)
    x, cache = patch_embedding_forward(**inputs)
    dx = np.random.default_rng(2).standard_normal(x.shape)
    tensors = [torch.tensor(value, requires_grad=True) for value in inputs.values()]
    pixels, weight, bias, positions = tensors
    theirs = torch.nn.functional.conv2d(pixels, weight, bias, stride=2).flatten(2).transpose(1, 2) + positions
    assert relative_error(x, theirs.detach()) < 1e-12
    theirs.backward(torch.tensor(dx))
    for name, ours, tensor in zip(inputs, patch_embedding_backward(dx, cache), tensors, strict=True):
        assert relative_error(ours, tensor.grad) < 1e-12, name
