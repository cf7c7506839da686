"""Images among a prompt's tokens: which rows are given instead of looked up, and which blocks they make different.

An image takes `image_seq_len` places in a row, each with the image token. Ids alone do not tell two images apart, so a
block that holds a part of one is registered under its digest too (scheduler.py).
Not here: from pixels to rows (image_reader.py). Tests: tests/vol3/test_images.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nano_llama.vol3_engine.batch import Embeddings


@dataclass(frozen=True, eq=False)
class ImageRows:
    """What the LLaMA reads of one image."""

    digest: bytes  # of the rows: the same image, encoded by the same weights
    rows: np.ndarray  # (n,D) float32


@dataclass(frozen=True, eq=False)
class PlacedImage:
    """An image, and the place of its first token in the prompt."""

    start: int
    image: ImageRows

    @property
    def end(self) -> int:
        return self.start + len(self.image.rows)


def embeddings_between(images: Iterable[PlacedImage], start: int, end: int) -> list[Embeddings]:
    """The images' rows among tokens start ... end-1, counted from the first of these; a part of an image, too."""
    found = []
    for placed in images:
        first, last = max(start, placed.start), min(end, placed.end)
        if first < last:
            found.append(Embeddings(first - start, placed.image.rows[first - placed.start : last - placed.start]))
    return found


def digests_between(images: Iterable[PlacedImage], start: int, end: int) -> tuple[bytes, ...]:
    """Of the images that have a token among start ... end-1, in their order.

    With the tokens, and all that comes before, they say what the rows are: where an image begins, and that it goes on.
    """
    return tuple(placed.image.digest for placed in images if placed.start < end and start < placed.end)
