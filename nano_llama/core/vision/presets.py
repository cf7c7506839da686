"""Named shapes of image encoders, each with the scale_factor of the pixel shuffle behind it.

Tests: tests/core/vision/test_presets.py.
"""

from typing import Any

from nano_llama.core.errors import UserError
from nano_llama.core.vision.config import VisionConfig


def _shape(D: int, L: int, H: int, S: int = 64, P: int = 8) -> dict[str, Any]:
    return {
        "hidden_size": D,
        "intermediate_size": 4 * D,
        "num_hidden_layers": L,
        "num_attention_heads": H,
        "image_size": S,
        "patch_size": P,
    }


# All read images of 64 x 64, the size of shapes-vqa's.
ENCODER_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": _shape(D=16, L=1, H=2, P=16),  # tests that run in milliseconds: 4 tokens an image
    "nano": _shape(D=128, L=3, H=2),  # beside nano_gpt on two cores: 16 tokens an image
}
SCALE_FACTOR = 2


def encoder_preset(name: str) -> VisionConfig:
    """Raises UserError for an unknown name."""
    if name not in ENCODER_PRESETS:
        raise UserError(f"Unknown image encoder {name!r}.", hint=f"Known: {', '.join(ENCODER_PRESETS)}.")
    return VisionConfig(**ENCODER_PRESETS[name])
