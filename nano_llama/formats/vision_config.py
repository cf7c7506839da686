"""A vision-language model's shape, between Hugging Face's config.json of an Idefics3 or SmolVLM and ours.

A folder of ours is written as an Idefics3's, so there is one layout. Tests: tests/formats/test_vision_config.py.
"""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

from nano_llama.core.errors import ConfigError
from nano_llama.core.vision.config import NUM_CHANNELS, VisionConfig, VisionLanguageConfig
from nano_llama.formats.hf_config import config_from_hf, config_to_hf

MODEL_TYPES = ("idefics3", "smolvlm")  # the same mathematics under two names
_DEFAULTS = {  # transformers leaves these out of a vision_config where they are so
    "hidden_size": 1152,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 32,
}
_MUST_BE = {"hidden_act": "gelu_pytorch_tanh", "num_channels": NUM_CHANNELS}
_BOOKKEEPING = {"model_type", "attention_dropout", "dtype", "torch_dtype", "max_image_size", "size", "use_base_siglip"}
_BOOKKEEPING |= {"tie_word_embeddings", "transformers_version", "architectures"}


def is_vision_language(raw: Any) -> bool:
    """Whether a config.json's content is that of a model which reads images, as far as they are known here."""
    return isinstance(raw, Mapping) and raw.get("model_type") in MODEL_TYPES


def vision_language_from_hf(raw: Mapping[str, Any], source: str = "config.json") -> VisionLanguageConfig:
    """Build from transformers' dictionary. `source` names the file in messages. Raises ConfigError."""
    if not is_vision_language(raw):
        kind = raw.get("model_type") if isinstance(raw, Mapping) else type(raw).__name__
        raise ConfigError(
            f"{source}: model_type {kind!r:.80} is not a model with images that is read here.",
            hint=f"Known: {', '.join(MODEL_TYPES)}.",
        )
    for part in ("text_config", "vision_config"):
        if not isinstance(raw.get(part), Mapping):
            raise ConfigError(f"{source}: {part} = {raw.get(part)!r:.80}: an object was expected.")
    if "image_token_id" not in raw:
        raise ConfigError(f"{source}: image_token_id missing.", hint="Is this the config.json of an Idefics3?")
    text = config_from_hf(raw["text_config"], f"{source}: text_config")
    text = text.replace(tie_word_embeddings=raw.get("tie_word_embeddings", False))  # the whole model's word counts
    try:
        return VisionLanguageConfig(
            text_config=text,
            vision_config=_vision_config(raw["vision_config"], f"{source}: vision_config"),
            image_token_id=raw["image_token_id"],
            scale_factor=raw.get("scale_factor", 2),
        )
    except ConfigError as error:
        raise ConfigError(f"{source}: {error.message}", hint=error.hint) from None


def vision_language_to_hf(config: VisionLanguageConfig) -> dict[str, Any]:
    """The dictionary that transformers reads as an `Idefics3ForConditionalGeneration`."""
    vision = dataclasses.asdict(config.vision_config)
    return {
        "architectures": ["Idefics3ForConditionalGeneration"],
        "model_type": "idefics3",
        "image_token_id": config.image_token_id,
        "scale_factor": config.scale_factor,
        "tie_word_embeddings": config.text_config.tie_word_embeddings,
        "text_config": config_to_hf(config.text_config),
        "vision_config": {"model_type": "idefics3_vision", **vision, **_MUST_BE},
    }


def _vision_config(raw: Mapping[str, Any], source: str) -> VisionConfig:
    fields = {field.name for field in dataclasses.fields(VisionConfig)}
    given = {key: value for key, value in raw.items() if value is not None}
    for key, computed in _MUST_BE.items():
        if given.get(key, computed) != computed:
            raise ConfigError(f"{source}: {key} = {given[key]!r:.80}; this encoder computes {computed!r} only.")
    for key in sorted(given.keys() - fields - _BOOKKEEPING - _MUST_BE.keys()):
        warnings.warn(f"{source}: the key {key!r} is unknown and ignored (value {given[key]!r:.80}).", stacklevel=3)
    return VisionConfig(**{**_DEFAULTS, **{key: value for key, value in given.items() if key in fields}})
