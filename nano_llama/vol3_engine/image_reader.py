"""From a prompt's pictures to the rows that stand in the places of its image tokens.

    file, bytes or array  --read-->  squares (T,S,S,3)  --encode-->  rows (n,D) of each, kept by the square's digest

An image is one square, or several where the model's processor splits it into tiles; among the ids each stands for
itself. Volume 1 encodes, without torch, or a function that is handed in. One square at a time: its rows do not depend
on what comes with it. Tests: tests/vol3/test_images.py, tests/parity/test_idefics3_processor.py.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.core.vision import VisionLanguageConfig, to_pixel_values
from nano_llama.core.vision.image_files import MAX_PIXELS, read_image
from nano_llama.core.vision.image_processing import ImageProcessing, Tiles
from nano_llama.vol3_engine.images import ImageRows, PlacedImage

if TYPE_CHECKING:
    from nano_llama.tokenizer import Tokenizer
    from nano_llama.tokenizer.image_token import ImageText

CACHE_BYTES = 64 * 2**20

Encode = Callable[[np.ndarray], np.ndarray]  # pixel_values (N,3,S,S) float32 -> rows (N,n,D)


class ImageReader:
    """Places a model's images in prompts. Usable from several threads.

    processing: how an image becomes squares; None: it is stretched to one. text: the ids that stand for an image; None:
    image_seq_len times the image token. cache_bytes: how many bytes of rows are kept for squares that come again, the
    least recently used leave first; 0 where the weights may change.
    """

    def __init__(
        self,
        config: VisionLanguageConfig,
        encode: Encode,
        cache_bytes: int = CACHE_BYTES,
        *,
        processing: ImageProcessing | None = None,
        text: "ImageText | None" = None,
    ):
        self.config, self._encode, self.cache_bytes = config, encode, cache_bytes
        self.processing = processing or ImageProcessing(image_size=config.vision_config.image_size)
        self._text = text
        self._cached: OrderedDict[bytes, ImageRows] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()  # of what is kept
        self._encoding = threading.Lock()  # one square at a time: more would need more memory, and no less time

    @classmethod
    def load(
        cls, folder: Path, tokenizer: "Tokenizer | None", encode: Encode | None = None, threads: int | None = None
    ) -> "ImageReader":
        """For the model in that folder. encode: in place of Volume 1's. Raises UserError, ConfigError, FormatError."""
        from nano_llama.formats.image_processor import read_image_processing
        from nano_llama.formats.vision_folder import read_vision_language_config
        from nano_llama.vol1_numpy.vision.image_encoder import ImageEncoder

        config = read_vision_language_config(folder)
        processing = read_image_processing(folder, config)
        text = _image_text(folder, config, tokenizer, processing)
        encode = encode or ImageEncoder.from_pretrained(folder, threads=threads)
        return cls(config, encode, processing=processing, text=text)

    @property
    def image_token_id(self) -> int:
        return self.config.image_token_id

    # -- among the ids --------------------------------------------------------------------------------------------

    def check_count(self, ids: Sequence[int], num_images: int, where: str, token: str = "<image>") -> None:
        """Raise UserError unless the prompt has one image token for each image."""
        count = sum(number == self.image_token_id for number in ids)
        if count != num_images:
            raise UserError(
                f"{where} has {token} {count} times and {num_images} images.",
                hint=f'Write {token} where each image stands: {{"prompt": "{token}What is this?", "images": [...]}}.',
            )

    def ids_of(self, image: Tiles | None = None) -> list[int]:
        """What stands among the ids for an image; None: for the shortest there is."""
        if self._text is None:
            return [self.image_token_id] * self.config.image_seq_len
        return self._text.ids(*((image.rows, image.columns) if image else ()))

    def expand(self, ids: Sequence[int], images: Sequence[Tiles]) -> list[int]:
        """A prompt with one image token for each image -> with all that stands for it."""
        left, image = iter(images), self.image_token_id
        return [one for number in ids for one in (self.ids_of(next(left)) if number == image else [number])]

    def place(self, ids: Sequence[int], images: Sequence[Tiles]) -> list[PlacedImage]:
        """Expanded ids and their images, encoded square by square."""
        places = [place for place, number in enumerate(ids) if number == self.image_token_id]
        starts = places[:: self.config.image_seq_len]
        squares = (pixels for image in images for pixels in image.pixels)
        return [PlacedImage(start, self.rows(pixels)) for start, pixels in zip(starts, squares, strict=True)]

    # -- pixels and rows ------------------------------------------------------------------------------------------

    def read(self, image: Any, *, max_pixels: int = MAX_PIXELS, splitting: bool = True) -> Tiles:
        """A file, its bytes, an array (H,W,3) of bytes, or what was read already -> its squares.

        splitting False: one square, also of a model whose processor splits. Raises UserError for what is not an image.
        """
        if isinstance(image, Tiles):
            return image
        processing = self.processing if splitting else self.processing.whole()
        return read_image(image, processing, max_pixels=max_pixels)

    def read_all(self, images: Sequence[Any], length: int, within: Callable[[int], object]) -> list[Tiles]:
        """The images of a prompt of `length` tokens, one for each of them.

        within: raises for a number of tokens that is too many, and is asked before the next image is read.
        """
        shortest, read = len(self.ids_of()), list[Tiles]()
        length += len(images) * (shortest - 1)
        for image in images:
            within(length)
            read.append(self.read(image))
            length += len(self.ids_of(read[-1])) - shortest
        return read

    def rows(self, pixels: np.ndarray) -> ImageRows:
        """What the LLaMA reads of one square (S,S,3)."""
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


def _image_text(
    folder: Path, config: VisionLanguageConfig, tokenizer: "Tokenizer | None", processing: ImageProcessing | None
) -> "ImageText | None":
    """None: an image is its image tokens alone. Raises UserError where folder and tokenizer contradict each other."""
    from nano_llama.tokenizer.image_token import AROUND, ImageText, has_image_text

    if processing is None:
        if tokenizer is not None and has_image_text(tokenizer):
            raise UserError(
                f"{folder} has no preprocessor_config.json, and its tokenizer has {AROUND}: how images are split and"
                " what stands around them is not known.",
                hint="Copy it, and processor_config.json, from where the model came from.",
            )
        return None
    if tokenizer is None:
        raise UserError(
            f"{folder} has an image processor and no tokenizer: the tokens around an image are not known.",
            hint="Copy tokenizer.json and tokenizer_config.json from where the model came from.",
        )
    return ImageText(tokenizer, config.image_token_id, config.image_seq_len)
