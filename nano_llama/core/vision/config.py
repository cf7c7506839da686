"""VisionConfig and VisionLanguageConfig: the shape of an image encoder, and of a LLaMA that reads its rows.

Every field means what it means in transformers' `config.json` of an `Idefics3ForConditionalGeneration` (SmolVLM is one
too): `vision_config` is the encoder, `text_config` the LLaMA, and `scale_factor` and `image_token_id` stand beside
them. Reading and writing that file: formats/vision_config.py. Tests: tests/core/vision/test_config.py.
Sources: Laurençon et al. 2024, "Idefics3" (arXiv 2408.12637), section 3; Zhai et al. 2023, "SigLIP" (arXiv 2303.15343).
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from nano_llama.core.config import LlamaConfig, check, check_positive_int, is_number
from nano_llama.core.errors import ConfigError

NUM_CHANNELS = 3  # red, green, blue


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The shape of an image encoder, a Vision Transformer (Dosovitskiy et al. 2020, arXiv 2010.11929).

    Raises ConfigError when a value is impossible; the message names the field and the value.

    >>> VisionConfig(image_size=64, patch_size=8, hidden_size=192, intermediate_size=768,
    ...              num_hidden_layers=4, num_attention_heads=3).num_patches
    64
    """

    image_size: int  # pixels along each side: images are square
    patch_size: int  # P, pixels along each side of a patch
    hidden_size: int  # D, the width of the encoder
    intermediate_size: int  # F, the width of its MLP
    num_hidden_layers: int
    num_attention_heads: int
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02  # standard deviation of fresh weights

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size", "hidden_size", "intermediate_size", "num_hidden_layers"):
            check_positive_int(name, getattr(self, name))
        check_positive_int("num_attention_heads", self.num_attention_heads)
        H, D, S = self.num_attention_heads, self.hidden_size, self.image_size
        check(D % H == 0, "hidden_size", D, f"a multiple of num_attention_heads = {H}")
        check(self.patch_size <= S, "image_size", S, f"at least patch_size = {self.patch_size}")
        for name in ("layer_norm_eps", "initializer_range"):
            value = getattr(self, name)
            check(is_number(value) and value > 0, name, value, "a positive number")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def patches_per_side(self) -> int:
        """Whole ones: pixels at the right and lower edge that are left over belong to none (SmolVLM: 384 by 14)."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """How many rows the encoder computes for an image, each with a learned position."""
        return self.patches_per_side**2

    def image_seq_len(self, scale_factor: int) -> int:
        """Rows of one image behind a pixel shuffle by `scale_factor`."""
        return (self.patches_per_side // scale_factor) ** 2

    @property
    def values_per_patch(self) -> int:
        return NUM_CHANNELS * self.patch_size**2

    @property
    def shape_text(self) -> str:
        """The shape in a line, for a caption."""
        return (
            f"{self.num_hidden_layers} layers of width {self.hidden_size}, {self.num_attention_heads} heads,"
            f" patches of {self.patch_size} x {self.patch_size} in images of {self.image_size} x {self.image_size}"
        )

    def replace(self, **changes: Any) -> "VisionConfig":
        """A copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class VisionLanguageConfig:
    """A LLaMA (`text_config`), an encoder (`vision_config`), and how the two are joined.

    Where `image_token_id` stands in a text, the LLaMA reads a row of the image instead of an embedding; an image is
    `image_seq_len` such tokens in a row.
    """

    text_config: LlamaConfig
    vision_config: VisionConfig
    image_token_id: int
    scale_factor: int = 2  # of the pixel shuffle: so many patches along each side become one row

    def __post_init__(self) -> None:
        for name, kind in (("text_config", LlamaConfig), ("vision_config", VisionConfig)):
            check(isinstance(getattr(self, name), kind), name, getattr(self, name), f"a {kind.__name__}")
        check_positive_int("scale_factor", self.scale_factor)
        side = self.vision_config.patches_per_side
        check(
            side % self.scale_factor == 0,
            "scale_factor",
            self.scale_factor,
            f"a divisor of the {side} patches per side",
        )
        vocabulary, token = self.text_config.vocab_size, self.image_token_id
        check(type(token) is int and 0 <= token < vocabulary, "image_token_id", token, f"an id below {vocabulary}")
        if self.image_seq_len > self.text_config.max_position_embeddings:
            raise ConfigError(
                f"An image is {self.image_seq_len} tokens, the context only "
                f"{self.text_config.max_position_embeddings}.",
                hint="Take a larger scale_factor or patch_size, or a longer max_position_embeddings.",
            )

    @property
    def image_seq_len(self) -> int:
        """How many tokens an image is to the LLaMA."""
        return self.vision_config.image_seq_len(self.scale_factor)

    @property
    def projector_inputs(self) -> int:
        """The width of a row after the pixel shuffle: scale_factor^2 patches side by side."""
        return self.vision_config.hidden_size * self.scale_factor**2

    @property
    def num_parameters(self) -> int:
        """The number of trainable parameters, the LLaMA's included."""
        vision = self.vision_config
        D, F = vision.hidden_size, vision.intermediate_size
        layer = 4 * (D * D + D) + 2 * D * F + F + D + 4 * D
        embeddings = D * vision.values_per_patch + D + vision.num_patches * D
        encoder = embeddings + vision.num_hidden_layers * layer + 2 * D
        return encoder + self.projector_inputs * self.text_config.hidden_size + self.text_config.num_parameters

    def replace(self, **changes: Any) -> "VisionLanguageConfig":
        """A copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)


ModelConfig = LlamaConfig | VisionLanguageConfig  # of what a run trains


def language_config(config: ModelConfig) -> LlamaConfig:
    """The LLaMA's, also where it reads images."""
    return config.text_config if isinstance(config, VisionLanguageConfig) else config
