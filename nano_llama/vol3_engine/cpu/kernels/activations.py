"""Activations: what a matrix is multiplied with, as rows of floats, of int8 in groups of 32, and of bfloat16.

    s = max|x| / 127,  q = round(x / s)       so  x = s q  to within s / 2, for each group of 32 columns of a row

Tests: tests/vol3/cpu/kernels/test_activations.py.
"""

from typing import NamedTuple

import numpy as np

from nano_llama.vol3_engine.cpu.aligned import aligned
from nano_llama.vol3_engine.cpu.jit.jit import kernel
from nano_llama.vol3_engine.cpu.kernels.kinds import GROUP, UNIT
from nano_llama.vol3_engine.cpu.simd.intrinsics import (
    absolute,
    load,
    maximum,
    reduce_add_i32,
    reduce_max,
    round_to_int32,
    splat,
    store,
    store_bfloat,
    store_int8,
)

MIN_PEAK = np.float32(1e-30)  # keeps a group of zeros from dividing 0 by 0

FLOATS, BYTES, BFLOATS = 1, 2, 4  # forms of a row, as flags: `values`; `quantized` and what follows; `bfloats`


class Activations(NamedTuple):
    """N rows of C columns, both padded, in all forms. Which gemm reads which: linear.py."""

    values: np.ndarray  # (N,C) float32
    bfloats: np.ndarray  # (N,C) uint16: bfloat16
    quantized: np.ndarray  # (N,C) int8
    scales: np.ndarray  # (N/16,C/32,16) float32: a group's scales of 16 rows are adjacent, for AMX
    sums: np.ndarray  # (N/16,C/32,16) int32: of a group's bytes, for weights with a zero point
    minima: np.ndarray  # (N/16,C/32,16) float32: scale * sum, what a weight's minimum is multiplied by


def activations(rows: int, columns: int) -> Activations:
    """Zeros for so many rows and columns; rows are padded to 16, columns to 64."""
    rows, columns = -(-rows // 16) * 16, -(-columns // UNIT) * UNIT
    groups = columns // GROUP
    return Activations(
        values=aligned(rows * columns, np.float32).reshape(rows, columns),
        bfloats=aligned(rows * columns, np.uint16).reshape(rows, columns),
        quantized=aligned(rows * columns, np.int8).reshape(rows, columns),
        scales=aligned(rows * groups, np.float32).reshape(rows // 16, groups, 16),
        sums=aligned(rows * groups, np.int32).reshape(rows // 16, groups, 16),
        minima=aligned(rows * groups, np.float32).reshape(rows // 16, groups, 16),
    )


def quantize_plain(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,C) float32 -> q (N,C) int8, s (N,C/32) float32: the reference for `quantize_group`."""
    groups = x.reshape(len(x), -1, GROUP)
    peak = np.maximum(np.abs(groups).max(-1), MIN_PEAK)
    q = np.rint(groups * (np.float32(127) / peak)[..., None]).astype(np.int8)
    return q.reshape(x.shape), peak * np.float32(1 / 127)


@kernel
def quantize_group(low, high, x, n, group):
    """Write two vectors of 16 floats as group `group` of row n: bytes, scale and sum."""
    peak = max(reduce_max(maximum(absolute(low), absolute(high))), MIN_PEAK)
    inverse = splat(np.float32(127.0) / peak)
    low_bytes, high_bytes = round_to_int32(low * inverse), round_to_int32(high * inverse)
    store_int8(x.quantized, n, GROUP * group, low_bytes)
    store_int8(x.quantized, n, GROUP * group + 16, high_bytes)
    scale, group_sum = peak * np.float32(1 / 127), reduce_add_i32(low_bytes + high_bytes)
    tile, row = n // 16, n % 16
    x.scales[tile, group, row], x.sums[tile, group, row] = scale, group_sum
    x.minima[tile, group, row] = scale * np.float32(group_sum)


@kernel
def skip_rows(x, first):
    """All rows from `first` on, a multiple of 16."""
    tile = first // 16
    return Activations(
        x.values[first:], x.bfloats[first:], x.quantized[first:], x.scales[tile:], x.sums[tile:], x.minima[tile:]
    )


@kernel
def write_group(low, high, n, group, out, form):
    """Write two vectors of 16 floats as group `group` of row n, in every form of `form`."""
    if form & FLOATS:
        store(out.values, n, GROUP * group, low)
        store(out.values, n, GROUP * group + 16, high)
    if form & BYTES:
        quantize_group(low, high, out, n, group)
    if form & BFLOATS:
        store_bfloat(out.bfloats, n, GROUP * group, low)
        store_bfloat(out.bfloats, n, GROUP * group + 16, high)


@kernel
def convert_row(x, n, form):
    """Convert row n of x.values to every form of `form`."""
    for group in range(x.scales.shape[1]):
        write_group(load(x.values, n, GROUP * group), load(x.values, n, GROUP * group + 16), n, group, x, form)
