"""From a prompt's pictures to the rows that stand in the places of its image tokens.

    file, bytes or array  --read_image-->  (S,S,3) bytes  --encode-->  (n,D) rows, kept by the bytes' digest

Volume 1 encodes, without torch, or a function that is handed in. One picture at a time: a picture's rows do not depend
on what comes with it. Tests: tests/vol3/test_images.py.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.core.vision import VisionLanguageConfig, to_pixel_values
from nano_llama.core.vision.image_files import read_image
from nano_llama.vol3_engine.images import ImageRows, PlacedImage

CACHE_BYTES = 64 * 2**20

Encode = Callable[[np.ndarray], np.ndarray]  # pixel_values (N,3,S,S) float32 -> rows (N,n,D)


class ImageReader:
    """Places a model's images in prompts. Usable from several threads.

    cache_bytes: how many bytes of rows are kept for pictures that come again, the least recently used leave first;
    0 where the weights may change.
    """

    def __init__(self, config: VisionLanguageConfig, encode: Encode, cache_bytes: int = CACHE_BYTES):
        self.config, self._encode, self.cache_bytes = config, encode, cache_bytes
        self._cached: OrderedDict[bytes, ImageRows] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()  # of what is kept
        self._encoding = threading.Lock()  # one picture at a time: more would need more memory, and no less time

    @classmethod
    def load(cls, folder: Path, encode: Encode | None = None, threads: int | None = None) -> "ImageReader":
        """For the model in that folder. encode: in place of Volume 1's. Raises UserError, FormatError."""
        from nano_llama.formats.vision_folder import read_vision_language_config
        from nano_llama.vol1_numpy.vision.image_encoder import ImageEncoder

        return cls(read_vision_language_config(folder), encode or ImageEncoder.from_pretrained(folder, threads=threads))

    @property
    def image_token_id(self) -> int:
        return self.config.image_token_id

    def expand(self, ids: Sequence[int], num_images: int, where: str, token: str = "<image>") -> list[int]:
        """A prompt with one image token for each image -> with image_seq_len of them. Raises UserError unless so."""
        count = sum(number == self.image_token_id for number in ids)
        if count != num_images:
            raise UserError(
                f"{where} has {token} {count} times and {num_images} images.",
                hint=f'Write {token} where each image stands: {{"prompt": "{token}What is this?", "images": [...]}}.',
            )
        n = self.config.image_seq_len
        return [same for number in ids for same in [number] * (n if number == self.image_token_id else 1)]

    def place(self, ids: Sequence[int], images: Sequence[Any]) -> list[PlacedImage]:
        """Expanded ids and their images, read and encoded. Raises UserError for what is not an image."""
        places = [place for place, number in enumerate(ids) if number == self.image_token_id]
        starts = places[:: self.config.image_seq_len]
        return [PlacedImage(start, self.rows(image)) for start, image in zip(starts, images, strict=True)]

    def rows(self, image: Any) -> ImageRows:
        """What the LLaMA reads of a file, its bytes, or an array (H,W,3) of bytes."""
        pixels = read_image(image, self.config.vision_config.image_size)  # (S,S,3)
        key = hashlib.sha256(pixels.tobytes()).digest()
        with self._lock:
            if key in self._cached:
                self._cached.move_to_end(key)
                return self._cached[key]
        with self._encoding:
            rows = np.asarray(self._encode(to_pixel_values(pixels[None])), np.float32)  # (1,n,D)
        self._check(rows)
        rows = np.ascontiguousarray(rows[0])
        return self._keep(key, ImageRows(hashlib.sha256(rows.tobytes()).digest(), rows))

    def _check(self, rows: np.ndarray) -> None:
        wanted = (1, self.config.image_seq_len, self.config.text_config.hidden_size)
        if rows.shape != wanted:
            raise UserError(
                f"encoder: it returned an array {rows.shape} for one image; this model reads {wanted}.",
                hint="It takes pixel_values (N,3,S,S) and returns rows (N, image_seq_len, hidden_size).",
            )

    def _keep(self, key: bytes, image: ImageRows) -> ImageRows:
        with self._lock:
            if key not in self._cached and image.rows.nbytes <= self.cache_bytes:
                self._cached[key] = image
                self._cached_bytes += image.rows.nbytes
            while self._cached_bytes > self.cache_bytes:
                self._cached_bytes -= self._cached.popitem(last=False)[1].rows.nbytes
        return image
