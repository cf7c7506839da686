"""A vision-language model's shape: configuration, parameter names, fresh weights, pixels.

The encoders themselves are in vol1_numpy/vision and vol2_torch/vision. Tests: tests/core/vision/.
"""

from nano_llama.core.vision.config import VisionConfig, VisionLanguageConfig
from nano_llama.core.vision.pixels import to_pixel_values

__all__ = ["VisionConfig", "VisionLanguageConfig", "to_pixel_values"]
