"""The encoder's modules against Volume 1's ops."""

import numpy as np
import pytest
import torch

from nano_llama.vol1_numpy.vision.pixel_shuffle import pixel_shuffle_forward
from nano_llama.vol2_torch.vision.encoder import pixel_shuffle


@pytest.mark.parametrize(("side", "scale_factor"), [(4, 1), (4, 2), (6, 3)])
def test_pixel_shuffle(side, scale_factor):
    x = np.random.default_rng(0).standard_normal((2, side * side, 3))
    np.testing.assert_array_equal(
        pixel_shuffle(torch.tensor(x), scale_factor), pixel_shuffle_forward(x, scale_factor)[0]
    )
