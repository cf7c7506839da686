"""How the kernels of rows divide their work: a program computes a tile of whole rows, or of some thousand numbers.

A tile lies in the registers of some threads. Its size is a function of the shape alone, so that the order of a
sum, and with it its bits, is too. Under Triton's interpreter, whose time is spent per operation and not per number,
tiles are as large as the work. Tests: tests/vol2/kernels/test_rmsnorm.py.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from nano_llama.vol2_torch.kernels.launch import check_tensors, is_interpreted

TILE_NUMBERS = 4096  # numbers: 256 threads hold 16 each, in registers
INTERPRETED_TILE = 2**17


class RowTile(NamedTuple):
    """rows x width numbers, both powers of two, which num_warps groups of 32 threads compute."""

    rows: int
    width: int
    num_warps: int


def row_tile(N: int, width: int) -> RowTile:
    """For rows (N,width) that a program holds whole."""
    width = triton.next_power_of_2(width)
    rows = min(
        max((INTERPRETED_TILE if is_interpreted() else TILE_NUMBERS) // width, 1), triton.next_power_of_2(max(N, 1))
    )
    return RowTile(rows, width, min(max(rows * width // 512, 1), 16))


def number_tile(numbers: int) -> int:
    """For numbers of which each is computed by itself: how many a program computes."""
    return min(INTERPRETED_TILE if is_interpreted() else TILE_NUMBERS // 2, triton.next_power_of_2(max(numbers, 1)))


def programs(N: int, rows: int) -> tuple[int]:
    """The grid: one program for each `rows` of N rows."""
    return (triton.cdiv(N, rows),)


def check_each(feature: str, *tensors: Tensor) -> None:
    """As launch.py's `check_tensors`, for a kernel that takes a format of its own for each tensor."""
    for tensor in tensors:
        check_tensors(feature, tensor)
    assert len({tensor.device for tensor in tensors}) == 1, f"{feature}: tensors of one device"


def wide(x: Tensor) -> torch.dtype:
    """What is computed with: float32, or float64 where x is."""
    return torch.promote_types(x.dtype, torch.float32)


def computed_in(x: Tensor) -> Any:
    """The same by Triton's name."""
    return tl.float64 if wide(x) == torch.float64 else tl.float32
