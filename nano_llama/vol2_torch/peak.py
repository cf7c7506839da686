"""What a device can do: the rate of its matrix products, measured, for MFU to be counted against.

Not a table of vendors' figures, which no program reaches and which do not know your machine's load.
Not here: what a model needs (core/training/flops.py). Tests: tests/vol2/test_memory_use.py.
"""

import time

import torch

SIZES = {"cpu": 1536, "cuda": 8192, "mps": 4096}  # large enough to be at the peak, small enough for milliseconds
TRIES = 4


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the best of a few square matrix products.  Takes about 0.1 s."""
    n = SIZES[device.type]
    a, b = (torch.full((n, n), 0.01, device=device, dtype=dtype) for _ in range(2))
    return max(2.0 * n**3 / _seconds(a, b) for _ in range(TRIES))


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    begin = time.perf_counter()
    product = a @ b
    product[0, 0].item()  # waits for the device
    return time.perf_counter() - begin
