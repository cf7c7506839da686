"""Images for Volume 2's LLaMA: the encoder and the model that joins the two, as modules.

The derivations are in vol1_numpy/vision. Tests: tests/vol2/vision/.
"""

from nano_llama.vol2_torch.vision.model import VisionLanguageModel

__all__ = ["VisionLanguageModel"]
