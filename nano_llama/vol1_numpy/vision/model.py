"""A LLaMA that sees: images -> encoder -> projector -> rows among the text's embeddings -> the LLaMA as it is.

Tests: tests/vol1/vision/test_vision_model.py, tests/parity/test_idefics3.py.
Sources: Liu et al. 2023, "LLaVA" (arXiv 2304.08485), section 4; Laurençon et al. 2024 (arXiv 2408.12637), section 3.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.core.names import parameter_shapes
from nano_llama.core.vision.config import NUM_CHANNELS, VisionLanguageConfig
from nano_llama.core.vision.init import check_vision_language_params, init_vision_language_params
from nano_llama.core.vision.names import text_name, vision_language_shapes
from nano_llama.core.vision.pixels import check_pixel_values, images_per_row
from nano_llama.formats import resolve_model
from nano_llama.formats.vision_folder import open_vision_language, save_vision_language
from nano_llama.vol1_numpy.data_parallel import add_grads, micro_batches, rows_of, run_shards, shards
from nano_llama.vol1_numpy.layer import Past
from nano_llama.vol1_numpy.model import Llama, check_dtype, check_ids
from nano_llama.vol1_numpy.ops.array import Array
from nano_llama.vol1_numpy.ops.registry import FAST, OpPair, Ops
from nano_llama.vol1_numpy.vision.image_encoder import ImageEncoder
from nano_llama.vol1_numpy.vision.splice import SplicedEmbedding


class VisionLanguageModel:
    """tokens (B,T) and pixel_values (N,3,S,S) -> logits (B,T,V), and the gradient of the cross-entropy.

    The N images stand, in reading order, where the tokens hold `config.image_seq_len` times `config.image_token_id`.
    `params` is {name: array} in core/vision/names.py's names; `language_model` is a Llama on the same arrays.
    """

    def __init__(
        self, config: VisionLanguageConfig, params: dict[str, Array], *, ops: Ops = FAST, threads: int | None = None
    ):
        """params: all of them, in float32 or float64. threads: as a Llama's.

        Raises FormatError where a parameter is missing or has another shape.
        """
        check_vision_language_params(config, params, "params")
        self.config, self.params = config, params
        text = {name: params[text_name(name)] for name in parameter_shapes(config.text_config)}
        self.language_model = Llama(config.text_config, text, ops=ops, threads=threads)
        self._encoder = ImageEncoder(config, params, ops=ops)

    # -- forward --------------------------------------------------------------------------------------------------

    def forward(
        self, tokens: Array, pixel_values: Array | None = None, *, mask: Array | None = None, past: Past | None = None
    ) -> Array:
        """tokens (B,T), pixel_values (N,3,S,S) -> logits (B,T,V). mask, past: as a Llama's.

        Raises UserError unless the tokens have places for exactly these images.
        """
        return self.language_model.logits(self.hidden_states(tokens, pixel_values, mask=mask, past=past))

    def hidden_states(
        self, tokens: Array, pixel_values: Array | None = None, *, mask: Array | None = None, past: Past | None = None
    ) -> Array:
        """As `forward`, without the head: (B,T,D)."""
        tokens, images_of = self._check_images(tokens, pixel_values)
        model, _ = self._reading(self._encoder.forward(images_of(slice(0, len(tokens))))[0])
        return model.hidden_states(tokens, mask=mask, past=past)

    def encode(self, pixel_values: Array) -> Array:
        """What the LLaMA reads of each image: (N,3,S,S) -> rows (N, image_seq_len, D)."""
        return self._encoder(pixel_values)

    # -- loss and gradients ---------------------------------------------------------------------------------------

    def loss(
        self,
        tokens: Array,
        targets: Array,
        pixel_values: Array | None = None,
        *,
        mask: Array | None = None,
        z_loss: float = 0.0,
    ) -> float:
        """The loss alone, as `loss_and_grads` defines it."""

        def one(rows: slice) -> float:
            model, _ = self._reading(self._encoder.forward(images_of(rows))[0])
            loss = model.loss(tokens[rows], targets[rows], mask=rows_of(mask, rows), z_loss=z_loss)
            return loss * share(targets[rows])

        tokens, images_of = self._check_images(tokens, pixel_values)
        targets, share = np.asarray(targets), share_of(targets)
        return sum(run_shards(one, shards(len(tokens), self.threads)))

    def loss_and_grads(
        self,
        tokens: Array,
        targets: Array,
        pixel_values: Array | None = None,
        *,
        mask: Array | None = None,
        micro_batch: int | None = None,
        **options: Any,
    ) -> tuple[float, dict[str, Array]]:
        """The mean cross-entropy over counted targets, in nats, and its gradient for every parameter.

        As a Llama's, `options` too. Rows are cut into shards and micro-batches here, each with its own images.
        """

        def one(rows: slice) -> tuple[float, dict[str, Array]]:
            total, sums = 0.0, dict[str, Array]()
            for part in micro_batches(rows, micro_batch):
                weight, masked = share(targets[part]), rows_of(mask, part)
                loss, grads = self._one(tokens[part], targets[part], images_of(part), mask=masked, **options)
                for grad in grads.values():
                    grad *= weight
                total, sums = total + loss * weight, add_grads(sums, grads)
            return total, sums

        tokens, images_of = self._check_images(tokens, pixel_values)
        targets, share = np.asarray(targets), share_of(targets)
        loss, sums = 0.0, dict[str, Array]()
        for shard_loss, grads in run_shards(one, shards(len(tokens), self.threads)):
            loss, sums = loss + shard_loss, add_grads(sums, grads)
        return loss, {name: sums[name] for name in self.trainable}

    def _one(self, tokens: Array, targets: Array, images: Array, **options: Any) -> tuple[float, dict[str, Array]]:
        """Forward and backward of some rows, in one thread."""
        rows, cache = self._encoder.forward(images)  # (N,n,D)
        model, embedding = self._reading(rows)
        loss, text = model.loss_and_grads(tokens, targets, **options)
        return loss, self._encoder.backward(embedding.drows, cache) | {text_name(name): g for name, g in text.items()}

    def _reading(self, rows: Array) -> tuple[Llama, SplicedEmbedding]:
        """The LLaMA, on the same weights, that reads these rows of images where image tokens stand."""
        embedding = SplicedEmbedding(self.language_model.ops.embedding, rows, self.config.image_token_id)
        model = self.language_model.with_ops(embedding=OpPair(embedding.forward, embedding.backward))
        model.threads = 1  # shards of a batch are made here, where the images are
        return model, embedding

    # -- what training asks for -----------------------------------------------------------------------------------

    @property
    def trainable(self) -> dict[str, Array]:
        """What has a gradient, and what an optimizer changes."""
        return self.params

    @property
    def threads(self) -> int:
        return self.language_model.threads

    @property
    def dtype(self) -> np.dtype:
        return self.language_model.dtype

    def __repr__(self) -> str:
        config = self.config
        return (
            f"{type(self).__name__}({config.num_parameters:,} parameters: images of {config.vision_config.image_size} "
            f"pixels a side, {config.image_seq_len} tokens each; {self.language_model!r})"
        )

    @classmethod
    def init(
        cls, config: VisionLanguageConfig, seed: int = 0, dtype: np.typing.DTypeLike = np.float32, **options: Any
    ) -> "VisionLanguageModel":
        """A model with fresh weights: the same numbers that every volume draws. options: see __init__."""
        return cls(config, init_vision_language_params(config, seed, check_dtype(dtype)), **options)

    @classmethod
    def from_pretrained(
        cls, path: str | Path, dtype: np.typing.DTypeLike = np.float32, **options: Any
    ) -> "VisionLanguageModel":
        """Read a folder of an Idefics3's layout, converting to `dtype`. Raises UserError, ConfigError, FormatError."""
        dtype = check_dtype(dtype)
        config, weights = open_vision_language(resolve_model(path))
        with weights:
            params = {name: np.array(weights[name], dtype, order="C") for name in vision_language_shapes(config)}
        return cls(config, params, **options)

    def save(self, path: str | Path, *, tokenizer: Any = None, dtype: str | None = None) -> None:
        """Write such a folder. dtype: the numbers' type in the file; None: the model's."""
        save_vision_language(path, self.config, self.params, tokenizer=tokenizer, dtype=dtype)

    def _check_images(self, tokens: Array, pixel_values: Array | None) -> tuple[Array, Callable[[slice], Array]]:
        """Checked tokens (B,T), and the images of some of their rows: (B rows) -> (N,3,S,S)."""
        tokens, vision = check_ids(tokens, self.config.text_config.vocab_size), self.config.vision_config
        if pixel_values is None:
            pixel_values = np.zeros((0, NUM_CHANNELS, vision.image_size, vision.image_size), self.dtype)
        check_pixel_values(pixel_values.shape, vision)
        images = pixel_values.astype(self.dtype, copy=False)
        is_image = tokens == self.config.image_token_id  # (B,T)
        counts = images_per_row(is_image, len(images), self.config.image_seq_len)  # (B,)
        starts = np.concatenate([[0], np.cumsum(counts)])  # (B+1,): each row's first image
        return tokens, lambda rows: images[starts[rows.start] : starts[rows.stop]]


def share_of(targets: Array) -> Callable[[Array], float]:
    """Which part of all counted targets some of them are."""
    count = max(1, int(np.count_nonzero(np.asarray(targets) != IGNORE_INDEX)))
    return lambda some: int(np.count_nonzero(some != IGNORE_INDEX)) / count
