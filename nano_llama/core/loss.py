"""What every loss of ours agrees on: which targets do not count, and how nats per token become bits per byte.

Not here: cross-entropy itself (vol1_numpy/ops/cross_entropy.py, vol2_torch/loss.py). Tests: tests/core/test_loss.py.
"""

import math

IGNORE_INDEX = -100  # a target that no loss counts: PyTorch's and Hugging Face's convention


def bits_per_byte(nats_per_token: float, tokens: int, num_bytes: int) -> float:
    """A loss on text of which `tokens` stand for `num_bytes` of UTF-8, comparable between tokenizers."""
    return nats_per_token * tokens / (math.log(2.0) * max(num_bytes, 1))
