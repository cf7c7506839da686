"""Bytes to pixel values, and images to the rows of tokens that they belong to."""

import numpy as np
import pytest

from helpers.vision_cases import tiny_vision_language_config
from nano_llama.core.errors import UserError
from nano_llama.core.vision.pixels import check_pixel_values, images_per_row, to_pixel_values


def test_black_is_minus_one_and_white_one():
    image = np.zeros((1, 2, 3, 3), np.uint8)
    image[0, 1, 2] = (255, 0, 51)
    values = to_pixel_values(image)
    assert values.shape == (1, 3, 2, 3) and values.dtype == np.float32 and values.flags.c_contiguous
    np.testing.assert_allclose(values[0, :, 1, 2], [1, -1, -0.6], rtol=1e-6)
    assert (values[0, :, 0] == -1).all()


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4, 3)), np.zeros((1, 4, 4, 4), np.uint8)]
)
def test_other_arrays_are_refused(image):
    with pytest.raises(UserError, match="images: expected bytes"):
        to_pixel_values(image)


def test_pixel_values_of_another_size_are_refused():
    with pytest.raises(UserError, match=r"shape \(1, 3, 9, 8\), but this encoder reads \(N, 3, 8, 8\)"):
        check_pixel_values((1, 3, 9, 8), tiny_vision_language_config().vision_config)


def test_images_belong_to_rows():
    is_image = np.array([[1, 1, 1, 1, 0], [0, 0, 0, 0, 0], [0, 1, 1, 0, 0]], bool)
    assert images_per_row(is_image, 3, 2).tolist() == [2, 0, 1]
    with pytest.raises(UserError, match="2 images of 2 tokens each, but the rows hold"):
        images_per_row(is_image, 2, 2)
    with pytest.raises(UserError, match="image tokens"):  # six tokens, but no row holds three
        images_per_row(is_image, 2, 3)
