"""The embedding: one row of a packed matrix, or a given row, as floats. Tests: tests/vol3/cpu/kernels/test_small.py."""

import numpy as np

from nano_llama.vol3_engine.cpu.jit.jit import kernel, noinline
from nano_llama.vol3_engine.cpu.kernels.gemm_float import float_strides, load_column
from nano_llama.vol3_engine.cpu.kernels.kinds import (
    UNIT,
    data_bytes,
    has_minima,
    is_4bit,
    is_float,
    unit_bytes,
    zero_point,
)
from nano_llama.vol3_engine.cpu.kernels.pack import BLOCK_ROWS
from nano_llama.vol3_engine.cpu.simd.intrinsics import extract_lane, load_one_half


@kernel
def embed_row(w, row, x, n):
    """x[n, : columns] = row `row` of w: Matrix. x (N,C) float32."""
    noinline()
    if is_float(w.kind):
        embed_floats(w, row, x, n)
    else:
        embed_groups(w, row, x, n)


@kernel
def copy_row(rows, row, x, n):
    """x[n, : columns] = rows[row]. rows (M,D), x (N,C) float32."""
    for k in range(rows.shape[1]):
        x[n, k] = rows[row, k]


@kernel
def embed_floats(w, row, x, n):
    width, stride = float_strides(w)
    for k in range(w.columns):
        x[n, k] = extract_lane(load_column(w, row // BLOCK_ROWS * stride + k * width), row % BLOCK_ROWS)


@kernel
def embed_groups(w, row, x, n):
    units, size = (w.columns + UNIT - 1) // UNIT, unit_bytes(w.kind)
    small, zero, minima = is_4bit(w.kind), zero_point(w.kind), has_minima(w.kind)
    data, r = data_bytes(w.kind), row % BLOCK_ROWS
    for unit in range(units):
        at = (row // BLOCK_ROWS * units + unit) * size
        for side in range(2):
            d, m = load_one_half(w.data, at + data + 32 * side + 2 * r), np.float32(0)
            if minima:
                m = load_one_half(w.data, at + data + 64 + 32 * side + 2 * r)
            for i in range(min(32, w.columns - UNIT * unit - 32 * side)):
                if small:  # a byte holds column i of an even quad low, of the odd quad after it high
                    byte = w.data[at + 256 * side + 64 * (i // 8) + 4 * r + i % 4]
                    u = np.int64(byte >> 4 if i // 4 % 2 else byte & 15)
                else:
                    u = np.int64(w.data[at + 512 * side + 64 * (i // 4) + 4 * r + i % 4])
                x[n, UNIT * unit + 32 * side + i] = np.float32(u - zero) * d + m
