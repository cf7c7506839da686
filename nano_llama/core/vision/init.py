"""Fresh weights of encoder and projector, the same for every volume, and a check of names and shapes.

Tests: tests/core/vision/test_names_init.py.
"""

from collections.abc import Mapping

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.init import check_shapes, init_params
from nano_llama.core.names import EMBED, LM_HEAD, parameter_shapes
from nano_llama.core.vision.config import VisionConfig, VisionLanguageConfig
from nano_llama.core.vision.names import (
    FC2,
    OUT_PROJ,
    POSITION_EMBEDDING,
    text_name,
    vision_language_shapes,
    vision_shapes,
)

POSITIONS = 5.0  # how much larger they are drawn: as large as what a patch shows, so that both are heard


def init_vision_params(
    config: VisionLanguageConfig, seed: int = 0, dtype: np.typing.DTypeLike = np.float32
) -> dict[str, np.ndarray]:
    """name -> new array for everything that is not the LLaMA, drawn as core/init.py draws a LLaMA's.

    Matrices are normal with the encoder's `initializer_range`, those that write into its residual stream (out_proj,
    fc2) scaled by 1/sqrt(2 layers), positions by POSITIONS; norm gains are 1, biases 0.
    """
    vision = config.vision_config
    residual = 1.0 / np.sqrt(2 * vision.num_hidden_layers)
    params = {}
    for index, (name, shape) in enumerate(vision_shapes(config).items()):
        if len(shape) == 1:
            params[name] = np.zeros(shape, dtype) if name.endswith(".bias") else np.ones(shape, dtype)
            continue
        std = vision.initializer_range
        if name.endswith((f"{OUT_PROJ}.weight", f"{FC2}.weight")):
            std *= residual
        elif name.endswith(POSITION_EMBEDDING):
            std *= POSITIONS
        values = np.random.default_rng((seed, index, 1)).standard_normal(shape, np.float32)  # 1: not the LLaMA's draws
        values *= np.float32(std)
        params[name] = values.astype(dtype, copy=False)
    return params


def init_vision_language_params(
    config: VisionLanguageConfig, seed: int = 0, dtype: np.typing.DTypeLike = np.float32
) -> dict[str, np.ndarray]:
    """name -> new array for every parameter; the LLaMA's values are those that `init_params` draws for it alone."""
    text = init_params(config.text_config, seed, dtype)
    return init_vision_params(config, seed, dtype) | {text_name(name): value for name, value in text.items()}


def add_vision(
    text_config: LlamaConfig,
    text_params: Mapping[str, np.ndarray],
    vision_config: VisionConfig,
    *,
    scale_factor: int = 2,
    seed: int = 0,
    dtype: np.typing.DTypeLike = np.float32,
) -> tuple[VisionLanguageConfig, dict[str, np.ndarray]]:
    """A trained LLaMA with a fresh encoder: config and new arrays. Its vocabulary grows by one, the image token.

    That token's row is the mean of the others: it is never read, since rows of images stand in its place, and as an
    answer it is about as likely as the average token.
    """
    image_token_id = text_config.vocab_size
    config = VisionLanguageConfig(
        text_config=text_config.replace(vocab_size=image_token_id + 1), vision_config=vision_config,
        image_token_id=image_token_id, scale_factor=scale_factor,
    )  # fmt: skip
    params = init_vision_params(config, seed, dtype)
    for name in parameter_shapes(text_config):
        value = np.array(text_params[name], dtype, order="C")
        if name in (EMBED, LM_HEAD):
            value = np.concatenate([value, value.mean(axis=0, keepdims=True)])  # (V+1,D)
        params[text_name(name)] = value
    return config, params


def check_vision_language_params(
    config: VisionLanguageConfig, params: Mapping[str, np.ndarray], source: str = "checkpoint"
) -> None:
    """Raise FormatError, naming the tensor, unless `params` has exactly the names and shapes that `config` implies."""
    check_shapes(vision_language_shapes(config), params, source)
