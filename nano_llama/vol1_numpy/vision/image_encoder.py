"""What stands before the LLaMA: images -> encoder -> pixel shuffle -> projector -> the rows that it reads.

Tests: tests/vol1/vision/test_vision_model.py, tests/vol3/test_images.py.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nano_llama.core.vision.config import VisionLanguageConfig
from nano_llama.core.vision.names import PROJECTOR, VISION, encoder_shapes, vision_shapes
from nano_llama.core.vision.pixels import check_pixel_values
from nano_llama.formats import resolve_model
from nano_llama.formats.vision_folder import open_vision_language
from nano_llama.vol1_numpy.data_parallel import blas_threads
from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.linear import linear_backward, linear_forward
from nano_llama.vol1_numpy.ops.registry import FAST, Ops
from nano_llama.vol1_numpy.vision.encoder import encoder_backward, encoder_forward
from nano_llama.vol1_numpy.vision.pixel_shuffle import pixel_shuffle_backward, pixel_shuffle_forward


class ImageEncoder:
    """pixel_values (N,3,S,S) -> rows (N, image_seq_len, D), D the LLaMA's width.

    params: {name: array} in core/vision/names.py's names; those of the LLaMA need not be there, and are not used.
    threads: of matrix products outside of training; None: no change.
    """

    def __init__(
        self,
        config: VisionLanguageConfig,
        params: Mapping[str, Array],
        *,
        ops: Ops = FAST,
        threads: int | None = None,
    ):
        self.config, self.threads = config, threads
        self._encoder = {name: params[VISION + name] for name in encoder_shapes(config.vision_config)}
        self._projector = params[PROJECTOR]
        self._attention = ops.attention

    def __call__(self, pixel_values: Array) -> Array:
        """The rows alone. Raises UserError for images of another shape."""
        check_pixel_values(pixel_values.shape, self.config.vision_config)
        with blas_threads(self.threads):
            return self.forward(pixel_values.astype(self._projector.dtype, copy=False))[0]

    def forward(self, pixel_values: Array) -> tuple[Array, Cache]:
        hidden, encoder = encoder_forward(
            pixel_values, self._encoder, self.config.vision_config, self._attention
        )  # (N, patches, the encoder's D)
        wide, shuffle = pixel_shuffle_forward(hidden, self.config.scale_factor)  # (N,n,r*r*D)
        rows, projector = linear_forward(wide, self._projector)  # (N,n, the LLaMA's D)
        return rows, (encoder, shuffle, projector)

    def backward(self, drows: Array, cache: Cache) -> dict[str, Array]:
        """drows: (N,n,D) -> {name: gradient} of encoder and projector."""
        encoder, shuffle, projector = cache
        dwide, dprojector = linear_backward(drows, projector)  # (N,n,r*r*D)
        _, grads = encoder_backward(pixel_shuffle_backward(dwide, shuffle), encoder)
        return {VISION + name: grad for name, grad in grads.items()} | {PROJECTOR: dprojector}

    @classmethod
    def from_pretrained(cls, path: str | Path, *, threads: int | None = None) -> "ImageEncoder":
        """Read what stands before the LLaMA in a folder of an Idefics3's layout, as float32.

        Raises UserError, ConfigError, FormatError.
        """
        config, weights = open_vision_language(resolve_model(path))
        with weights:
            params = {name: np.array(weights[name], np.float32, order="C") for name in vision_shapes(config)}
        return cls(config, params, threads=threads)
