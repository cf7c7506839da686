"""Q4_0: a block's largest number is kept exactly, with its sign, and all sixteen values are used."""

import numpy as np

from nano_llama.formats.gguf_quants import dequantize, quantize


def test_the_largest_number_is_kept():
    x = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    back = dequantize("Q4_0", quantize("Q4_0", x))
    rows, places = np.arange(64), np.abs(x).argmax(axis=1)
    error = abs(back[rows, places] / x[rows, places] - 1)
    assert error.max() < 1e-3, f"a block's largest number comes back {error.max():.1%} off"


def test_all_values_are_used():
    x = np.random.default_rng(1).standard_normal((256, 32)).astype(np.float32)
    packed = quantize("Q4_0", x).reshape(-1, 18)[:, 2:]
    used = set((packed & 15).ravel().tolist()) | set((packed >> 4).ravel().tolist())
    assert used == set(range(16)), f"of sixteen values {len(used)} are used"


def test_the_error_is_that_of_sixteen_steps():
    """Against the rule written down for one block: eight steps on the larger side, seven on the other."""
    x = np.random.default_rng(2).standard_normal((256, 32)).astype(np.float32)
    back = dequantize("Q4_0", quantize("Q4_0", x))
    extreme = x[np.arange(256), np.abs(x).argmax(axis=1)][:, None]
    step = (extreme / -8).astype(np.float16).astype(np.float32)
    best = np.clip(np.round(x / step), -8, 7) * step
    ours, theirs = np.mean((back - x) ** 2), np.mean((best - x) ** 2)
    assert ours < 1.02 * theirs, f"the mean squared error is {ours:.5f}; nearest values give {theirs:.5f}"
