"""What a device can do: the rate of its matrix products, measured, for MFU to be counted against.

Not a table of vendors' figures, which no program reaches and which do not know your machine's load.
Tests: tests/vol2/test_memory_use.py.
"""

import time

import torch

SIZES = {"cpu": 1536, "cuda": 8192, "mps": 4096}  # large enough to be at the peak, small enough for milliseconds
SECONDS = 0.15


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of the square matrix products that fit into SECONDS.

    Where a CPU emulates the dtype, a product of SIZES takes half a minute: sizes double up to it as long as they fit.
    """
    rate, end = 0.0, time.perf_counter() + SECONDS
    for n in (SIZES[device.type] // part for part in (8, 4, 2, 1)):
        a, b = (torch.full((n, n), 0.01, device=device, dtype=dtype) for _ in range(2))
        _seconds(a, b)  # the first starts threads and chooses kernels
        seconds = _seconds(a, b)
        rate = max(rate, 2.0 * n**3 / seconds)
        if 8 * seconds > SECONDS:  # what the next would take
            break
    while time.perf_counter() < end:
        rate = max(rate, 2.0 * n**3 / _seconds(a, b))
    return rate


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    begin = time.perf_counter()
    product = a @ b
    product[0, 0].item()  # waits for the device
    return time.perf_counter() - begin
