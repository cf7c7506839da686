"""Adapters in a step: rows that have one get its low-rank update after the product with the base's packed matrix.

    shrink      low = A x                                       (N,r), before any matrix that reads x
    expand      y = rescaling * (W x) + B low                   each thread in its own blocks of W

Neighbouring rows with the same adapter form a run, so that many rows share a load of A or B; rows without one are in no
run and nothing here touches them. A and B are floats, and so are the rows that they read: only W's product may be of
int8. A row's sums run over columns in ascending order, whatever its run, so its bits depend on that row alone.
Where W x is added to the residual stream, the rows of a run put their part of the stream aside first (`set_aside`),
since the rescaling applies to W x only.
"Shrink" and "expand": Chen et al. 2023, Punica (arXiv 2310.18547). Not here: what an adapter is
(vol3_engine/adapters.py), how it is packed (cpu/adapters.py). Tests: tests/vol3/cpu/kernels/test_lora.py.
"""

from typing import NamedTuple

import numpy as np

from nano_llama.vol3_engine.cpu.jit.jit import always_inline, kernel, noinline
from nano_llama.vol3_engine.cpu.kernels.batch_arrays import ADAPTER, START, STOP
from nano_llama.vol3_engine.cpu.kernels.gemm_float import broadcast_four, float_strides, fma_four, load_column
from nano_llama.vol3_engine.cpu.kernels.gemm_output import four, write_four, write_row
from nano_llama.vol3_engine.cpu.kernels.model import LOW, RESCALING, ROWS, STEP, Adapters, matrix_at
from nano_llama.vol3_engine.cpu.simd.intrinsics import fma, load, splat, store


class LowRank(NamedTuple):
    """What the rows of a step need."""

    adapters: Adapters
    runs: np.ndarray  # (runs,3) int64
    low: np.ndarray  # [N,R] float32
    aside: np.ndarray  # [N,C] float32


def shrink_plain(x: np.ndarray, A: np.ndarray) -> np.ndarray:
    """(N,in), (r,in) -> low (N,r): the reference, in the kernel's order, each step rounded once."""
    sums = np.zeros((2, len(x), len(A)), np.float32)  # over even columns, over odd ones
    for k in range(A.shape[1]):
        sums[k % 2] = (A[:, k].astype(np.float64) * x[:, k, None] + sums[k % 2]).astype(np.float32)
    return sums[0] + sums[1]


def expand_plain(y: np.ndarray, low: np.ndarray, B: np.ndarray, rescaling: np.ndarray) -> np.ndarray:
    """(N,out), (N,r), (out,r), (out,) -> (N,out): likewise."""
    acc = np.zeros_like(y)
    for k in range(B.shape[1]):
        acc = (B[:, k].astype(np.float64) * low[:, k, None] + acc).astype(np.float32)
    return (rescaling.astype(np.float64) * y + acc).astype(np.float32)


@kernel
def shrink(lora, layer, which, first, last, x):
    """low = A x for those of rows first ... last-1 of x (Activations) that are in a run. which: QKV_A ... DOWN_A."""
    noinline()
    for i in range(len(lora.runs)):
        begin, end = max(first, lora.runs[i, START]), min(last, lora.runs[i, STOP])
        w = matrix_at(lora.adapters.data, lora.adapters.A[lora.runs[i, ADAPTER], layer, which])
        for block in range((w.rows + 15) // 16):
            for n in range(begin, end, 4):
                if end - n == 1:
                    shrink_row(w, block, x.values, n, lora.low)
                else:
                    shrink_four_rows(w, block, x.values, n, end - n, lora.low)


@kernel
def shrink_row(w, block, x, n, low):
    """Two chains of additions, so that one does not wait for the other."""
    width, stride = float_strides(w)
    even = odd = splat(np.float32(0))
    for k in range(0, w.columns, 2):
        at = block * stride + k * width
        even = fma(load_column(w, at), splat(x[n, k]), even)
        if k + 1 < w.columns:
            odd = fma(load_column(w, at + width), splat(x[n, k + 1]), odd)
    write_row(even + odd, False, low, n, 16 * block)


@kernel
def shrink_four_rows(w, block, x, n, rows, low):
    """The first `rows` of four."""
    width, stride = float_strides(w)
    even = odd = four(splat(np.float32(0)))
    for k in range(0, w.columns, 2):
        at = block * stride + k * width
        even = fma_four(even, load_column(w, at), broadcast_four(x, n, k))
        if k + 1 < w.columns:
            odd = fma_four(odd, load_column(w, at + width), broadcast_four(x, n, k + 1))
    sums = even[0] + odd[0], even[1] + odd[1], even[2] + odd[2], even[3] + odd[3]
    write_four(sums, rows, False, low, n, 16 * block)


@kernel
def is_adapted(lora, i, layer, which):
    """Whether run i's adapter changes this matrix."""
    return lora.adapters.B[lora.runs[i, ADAPTER], layer, which, ROWS] > 0


@kernel
def set_aside(lora, layer, which, first, last, x):
    """Before W's product is added to x: move blocks first <= b < last of the runs' rows to `aside`, and leave zeros."""
    noinline()
    for i in range(len(lora.runs)):
        if is_adapted(lora, i, layer, which):
            for n in range(lora.runs[i, START], lora.runs[i, STOP]):
                for column in range(16 * first, 16 * last, 16):
                    store(lora.aside, n, column, load(x, n, column))
                    store(x, n, column, splat(np.float32(0)))


@kernel
def expand(lora, layer, which, first_row, last_row, first, last, aside, out, column):
    """Blocks first <= b < last of rows first_row ... last_row-1 that are in a run: out = rescaling * out + B low.

    out: row first_row is its row 0, block `first` begins at `column`. aside: add what `set_aside` has put aside.
    """
    noinline()
    for i in range(len(lora.runs)):
        if not is_adapted(lora, i, layer, which):
            continue
        entry = lora.adapters.B[lora.runs[i, ADAPTER], layer, which]
        w = matrix_at(lora.adapters.data, entry)
        begin, end = max(first_row, lora.runs[i, START]), min(last_row, lora.runs[i, STOP])
        for n in range(begin, end, 4):
            for block in range(first, last):
                rescaling = load(lora.adapters.rescalings, entry[RESCALING] + 16 * block)
                acc = block_times_low(w, block, lora.low, n, end - n, entry[LOW] + block % 2 * entry[STEP])
                to = column + 16 * (block - first)
                add_update(acc[0], rescaling, aside, lora.aside, n, out, n - first_row, to)
                if end - n > 1:
                    add_update(acc[1], rescaling, aside, lora.aside, n + 1, out, n + 1 - first_row, to)
                if end - n > 2:
                    add_update(acc[2], rescaling, aside, lora.aside, n + 2, out, n + 2 - first_row, to)
                if end - n > 3:
                    add_update(acc[3], rescaling, aside, lora.aside, n + 3, out, n + 3 - first_row, to)


@kernel
def block_times_low(w, block, low, n, rows, start):
    """A block of B times columns `start` ... of `low`, for four rows, of which one or more are needed."""
    always_inline()
    width, stride = float_strides(w)
    acc = four(splat(np.float32(0)))
    if rows == 1:
        one = acc[0]
        for k in range(w.columns):
            one = fma(load_column(w, block * stride + k * width), splat(low[n, start + k]), one)
        return one, acc[1], acc[2], acc[3]
    for k in range(w.columns):
        acc = fma_four(acc, load_column(w, block * stride + k * width), broadcast_four(low, n, start + k))
    return acc


@kernel
def add_update(acc, rescaling, with_aside, aside, n, out, row, column):
    """out[row] = rescaling * out[row] + acc, and the stream that was put aside."""
    always_inline()
    y = fma(rescaling, load(out, row, column), acc)
    if with_aside:
        y = load(aside, n, column) + y
    store(out, row, column, y)
