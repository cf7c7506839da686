"""How large the tiles of flash attention are, and how many warps and pipeline stages a program has.

Chosen from a table and not by triton.autotune, whose choice may differ from run to run, and with it the last bits of a
result. bench/gpu.py tries others with `configs_set_to` on a card; what is fastest there goes into CONFIGS.
Tests: tests/vol2/kernels/test_flash_attention.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

KERNELS = ("forward", "dq", "dkdv")


class KernelConfig(NamedTuple):
    """One program's tile of queries by keys, the warps of 32 threads that share it, and the tiles loaded ahead."""

    queries: int
    keys: int
    num_warps: int
    num_stages: int


# (kernel, bytes of an element, largest head dim) -> configuration, for compute capability 9.0. Chosen without a card,
# from what the compiler says of each (dev/LOG.md): two programs on a multiprocessor where registers allow it, so that
# one's exponentials run beside the other's products; no tile in local memory. float32's products use no tensor cores.
CONFIGS: dict[tuple[str, int, int], KernelConfig] = {
    ("forward", 2, 64): KernelConfig(128, 64, 8, 3),
    ("forward", 2, 128): KernelConfig(128, 64, 8, 3),
    ("dq", 2, 64): KernelConfig(128, 64, 8, 3),
    ("dq", 2, 128): KernelConfig(128, 64, 8, 2),
    ("dkdv", 2, 64): KernelConfig(64, 128, 8, 3),
    ("dkdv", 2, 128): KernelConfig(64, 128, 8, 2),
    ("forward", 4, 64): KernelConfig(32, 32, 4, 2),
    ("forward", 4, 128): KernelConfig(32, 16, 4, 2),
    ("dq", 4, 64): KernelConfig(32, 32, 4, 2),
    ("dq", 4, 128): KernelConfig(32, 16, 4, 1),
    ("dkdv", 4, 64): KernelConfig(16, 32, 4, 1),
    ("dkdv", 4, 128): KernelConfig(16, 16, 4, 1),
    ("forward", 8, 128): KernelConfig(32, 32, 4, 1),  # float64: in the interpreter only
    ("dq", 8, 128): KernelConfig(32, 32, 4, 1),
    ("dkdv", 8, 128): KernelConfig(32, 32, 4, 1),
}

_set: dict[str, KernelConfig] = {}


def config_for(kernel: str, dtype: torch.dtype, head_dim: int) -> KernelConfig:
    """What one of KERNELS is launched with: as `configs_set_to` says, or the table."""
    if kernel in _set:
        return _set[kernel]
    fitting = [dim for name, size, dim in CONFIGS if (name, size) == (kernel, dtype.itemsize) and dim >= head_dim]
    return CONFIGS[kernel, dtype.itemsize, min(fitting)]


@contextmanager
def configs_set_to(**configs: KernelConfig) -> Iterator[None]:
    """Within it, these and not the table's:  with configs_set_to(forward=KernelConfig(64, 64, 4, 3)): ...

    For the whole process, since the backward runs in autograd's threads.
    """
    before = dict(_set)
    _set.update(configs)
    try:
        yield
    finally:
        _set.clear()
        _set.update(before)
