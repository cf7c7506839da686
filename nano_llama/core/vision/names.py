"""The names and shapes of a vision-language model's parameters, those of Idefics3ForConditionalGeneration.

Tests: tests/core/vision/test_names_init.py.
"""

from collections.abc import Mapping
from typing import TypeVar

from nano_llama.core.names import LM_HEAD, parameter_shapes
from nano_llama.core.vision.config import NUM_CHANNELS, VisionConfig, VisionLanguageConfig

Value = TypeVar("Value")

VISION = "model.vision_model."
TEXT = "model.text_model."
PATCH_EMBEDDING = "embeddings.patch_embedding"  # .weight (D,3,P,P), .bias (D,)
POSITION_EMBEDDING = "embeddings.position_embedding.weight"  # (number of patches, D)
POST_LAYERNORM = "post_layernorm"  # .weight, .bias (D,)
PROJECTOR = "model.connector.modality_projection.proj.weight"  # (the LLaMA's D, scale_factor^2 * the encoder's D)

# A layer's parts, each with .weight and .bias, in the order in which the forward pass meets them.
LAYER_NORM1, LAYER_NORM2 = "layer_norm1", "layer_norm2"
Q_PROJ, K_PROJ, V_PROJ, OUT_PROJ = (f"self_attn.{x}_proj" for x in ("q", "k", "v", "out"))
FC1, FC2 = "mlp.fc1", "mlp.fc2"
_PARTS = (LAYER_NORM1, Q_PROJ, K_PROJ, V_PROJ, OUT_PROJ, LAYER_NORM2, FC1, FC2)
LAYER_PARTS = tuple(f"{part}.{kind}" for part in _PARTS for kind in ("weight", "bias"))


def layer_name(index: int, part: str) -> str:
    """layer_name(3, "mlp.fc1.bias") == "encoder.layers.3.mlp.fc1.bias", within the encoder."""
    return f"encoder.layers.{index}.{part}"


def encoder_shapes(config: VisionConfig) -> dict[str, tuple[int, ...]]:
    """name -> shape of the encoder's parameters, in forward order, without the `model.vision_model.` before them."""
    D, F, P = config.hidden_size, config.intermediate_size, config.patch_size
    shapes: dict[str, tuple[int, ...]] = {
        f"{PATCH_EMBEDDING}.weight": (D, NUM_CHANNELS, P, P),
        f"{PATCH_EMBEDDING}.bias": (D,),
        POSITION_EMBEDDING: (config.num_patches, D),
    }
    matrices = {Q_PROJ: (D, D), K_PROJ: (D, D), V_PROJ: (D, D), OUT_PROJ: (D, D), FC1: (F, D), FC2: (D, F)}
    for index in range(config.num_hidden_layers):
        for part in LAYER_PARTS:
            shape = matrices.get(part.rsplit(".", 1)[0], (D,))
            shapes[layer_name(index, part)] = shape if part.endswith(".weight") else shape[:1]
    return shapes | {f"{POST_LAYERNORM}.weight": (D,), f"{POST_LAYERNORM}.bias": (D,)}


def vision_shapes(config: VisionLanguageConfig) -> dict[str, tuple[int, ...]]:
    """name -> shape of everything that is not the LLaMA: encoder and projector, in forward order."""
    shapes = {VISION + name: shape for name, shape in encoder_shapes(config.vision_config).items()}
    return shapes | {PROJECTOR: (config.text_config.hidden_size, config.projector_inputs)}


def vision_language_shapes(config: VisionLanguageConfig) -> dict[str, tuple[int, ...]]:
    """name -> shape of every parameter, in forward order."""
    text = {text_name(name): shape for name, shape in parameter_shapes(config.text_config).items()}
    return vision_shapes(config) | text


def text_name(name: str) -> str:
    """A LLaMA's own name -> its name here: text_name("model.norm.weight") == "model.text_model.norm.weight"."""
    return f"{TEXT}{name.removeprefix('model.')}" if name.startswith("model.") else name


def is_language_model(name: str) -> bool:
    """Whether a parameter is the LLaMA's, and not the encoder's or the projector's."""
    return name.startswith(TEXT) or name == LM_HEAD


def language_model(params: Mapping[str, Value]) -> dict[str, Value]:
    """The LLaMA's part, under its names here."""
    return {name: params[name] for name in params if is_language_model(name)}
