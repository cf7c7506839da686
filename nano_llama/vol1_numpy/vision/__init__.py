"""Images for Volume 1's LLaMA, by hand: patches, encoder, projector, and the rows' place in the text.

Read it in this order: patches.py, encoder.py, pixel_shuffle.py, splice.py, each with forward and backward side by side,
then model.py, which joins them with the LLaMA. Tests: tests/vol1/vision/.
"""

from nano_llama.vol1_numpy.vision.model import VisionLanguageModel

__all__ = ["VisionLanguageModel"]
