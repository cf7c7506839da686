"""From a picture's bytes to the numbers that an encoder reads, and the check that they are as many.

Tests: tests/core/vision/test_pixels.py.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.core.vision.config import NUM_CHANNELS, VisionConfig


def to_pixel_values(images: np.ndarray | Sequence[np.ndarray], dtype: np.typing.DTypeLike = np.float32) -> np.ndarray:
    """RGB bytes (N,S,S,3) -> (N,3,S,S) from -1 (black) to 1: (x / 255 - 0.5) / 0.5, as SigLIP and Idefics3 take them.

    Raises UserError for anything but bytes with three channels.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != NUM_CHANNELS:
        raise UserError(
            f"images: expected bytes (uint8) of shape (N, height, width, 3), got {images.dtype} {images.shape}.",
            hint="One image goes in as image[None]; all have the same size.",
        )
    return images.transpose(0, 3, 1, 2).astype(dtype, order="C") / 127.5 - 1


def check_pixel_values(shape: Sequence[int], config: VisionConfig) -> None:
    """Raise UserError unless `shape` is (N,3,S,S) with the encoder's image_size S."""
    wanted = (NUM_CHANNELS, config.image_size, config.image_size)
    if len(shape) != 4 or tuple(shape[1:]) != wanted:
        raise UserError(
            f"pixel_values: shape {tuple(shape)}, but this encoder reads (N, {', '.join(map(str, wanted))}).",
            hint="to_pixel_values makes them of bytes (N, height, width, 3); resize first.",
        )


def images_per_row(is_image: Any, num_images: int, image_seq_len: int) -> np.ndarray:
    """How many images each row of tokens holds, (B,) integers. is_image: (B,T), True where an image token stands.

    Images belong to the image tokens in reading order, row by row. Raises UserError unless there are as many, and each
    row holds whole images.
    """
    counts = np.count_nonzero(np.asarray(is_image), axis=1)  # (B,)
    if np.any(counts % image_seq_len) or counts.sum() != num_images * image_seq_len:
        raise UserError(
            f"{num_images} images of {image_seq_len} tokens each, but the rows hold {counts.tolist()} image tokens.",
            hint="Each image stands for image_seq_len times the image token, all in one row.",
        )
    return counts // image_seq_len
