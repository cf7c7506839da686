"""From an image of any size to the squares that an encoder reads: one, or several tiles and the whole image again.

    stretched     both sides to the square: a model of ours reads images so
    resized       first to `longest_edge`, in proportion, then to the square
    split         to `longest_edge`, then up to whole tiles of the square's size

The second and the third are transformers' Idefics3ImageProcessor, with do_image_splitting off and on. The tiles of a
split image come line by line, and the whole image, shrunk to one square, last. Sizes are rounded as transformers rounds
them, and each step's pixels are bytes: so the last bit is the same.
Not here: which of these a model wants (formats/image_processor.py), files (image_files.py), the tokens around each
square (tokenizer/image_token.py). Tests: tests/core/vision/test_image_processing.py.
Source: Laurençon et al. 2024, "Idefics3" (arXiv 2408.12637), section 3.1.2.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from nano_llama.core.config import check_positive_int
from nano_llama.core.errors import import_extra
from nano_llama.core.vision.config import NUM_CHANNELS

MAX_EDGE = 4096  # pixels: transformers resizes to no more
_LANCZOS = 1  # Pillow's number of the filter


@dataclass(frozen=True, eq=False)
class Tiles:
    """What an encoder reads of one image. rows, columns: of its tiles, 0 where it is not split."""

    pixels: np.ndarray  # (rows * columns + 1, S, S, 3) bytes, RGB; the last is the whole image
    rows: int = 0
    columns: int = 0


@dataclass(frozen=True, kw_only=True)
class ImageProcessing:
    """How images are brought to squares of `image_size`. longest_edge None: stretched straight to one."""

    image_size: int
    longest_edge: int | None = None
    do_image_splitting: bool = False

    def __post_init__(self) -> None:
        check_positive_int("image_size", self.image_size)
        if self.longest_edge is not None:
            check_positive_int("longest_edge", self.longest_edge)
        assert self.longest_edge is not None or not self.do_image_splitting, "splitting follows a resize"

    def whole(self) -> "ImageProcessing":
        """The same without splitting."""
        return dataclasses.replace(self, do_image_splitting=False)

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """How many rows and columns of tiles an image of this size gets; (0, 0): it is not split."""
        if not self.do_image_splitting:
            return 0, 0
        width, height = self._whole_tiles(*self._to_longest_edge(width, height))
        S = self.image_size
        return (height // S, width // S) if width > S or height > S else (0, 0)

    def tiles(self, image: Any) -> Tiles:
        """image: Pillow's, in RGB."""
        S = self.image_size
        rows, columns = self.grid(*image.size)
        if self.longest_edge is not None:
            image = _resized(image, *self._to_longest_edge(*image.size))
        if self.do_image_splitting:
            image = _resized(image, *self._whole_tiles(*image.size))
        whole = np.asarray(_resized(image, S, S), np.uint8)  # (S,S,3)
        if not rows:
            return Tiles(whole[None])
        cut = np.asarray(image, np.uint8).reshape(rows, S, columns, S, NUM_CHANNELS)  # (row, y, column, x, channel)
        parts = cut.transpose(0, 2, 1, 3, 4).reshape(rows * columns, S, S, NUM_CHANNELS)
        return Tiles(np.concatenate([parts, whole[None]]), rows, columns)

    def tiles_of_array(self, array: np.ndarray) -> Tiles:
        """array: (H,W,3) bytes. One of the square's own size that is only to be stretched needs no Pillow."""
        if self.longest_edge is None and array.shape[:2] == (self.image_size, self.image_size):
            return Tiles(np.ascontiguousarray(array)[None])
        pillow = import_extra("PIL.Image", "vision", "Resizing images")
        return self.tiles(pillow.fromarray(np.ascontiguousarray(array)))

    def _to_longest_edge(self, width: int, height: int) -> tuple[int, int]:
        """The longer side as long as `longest_edge`, the other in proportion, rounded down and then up to even."""
        assert self.longest_edge is not None
        edge, ratio = self.longest_edge, width / height
        if width >= height:
            width, height = edge, _even(int(edge / ratio))
        else:
            width, height = _even(int(edge * ratio)), edge
        ratio = width / height
        if width >= height and width > MAX_EDGE:
            width, height = MAX_EDGE, max(int(MAX_EDGE / ratio), 1)
        elif height > width and height > MAX_EDGE:
            width, height = max(int(MAX_EDGE * ratio), 1), MAX_EDGE
        return width, height

    def _whole_tiles(self, width: int, height: int) -> tuple[int, int]:
        """The longer side up to a multiple of the square's, the other in proportion and then up to one too."""
        S, ratio = self.image_size, width / height
        if width >= height:
            width = _up(width, S)
            return width, _up(int(width / ratio), S)
        height = _up(height, S)
        return _up(int(height * ratio), S), height


def _even(length: int) -> int:
    return max(length + length % 2, 1)


def _up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _resized(image: Any, width: int, height: int) -> Any:
    """With Lanczos's filter; Pillow copies an image that has the size already."""
    return image if image.size == (width, height) else image.resize((width, height), _LANCZOS)
