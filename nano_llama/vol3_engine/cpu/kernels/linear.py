"""y = W x for packed matrices: picks the kernel that fits the kind of the weights and the number of tokens.

    out[n, 16 b : 16 b + 16] = rows 16 b ... of W  .  x[n]       for tokens n, blocks first <= b < last

    prefill rows, where there is AMX     gemm_bf16_amx.py, for bfloat16 and quantized weights
    floats                               gemm_float.py
    quantized, few tokens                gemm_int8.gemv_int8, straight from the packed weights
    quantized, more                      gemm_int8_amx.py, or gemm_int8.py without AMX

Prefill rows always take the first, so a row's bits do not depend on the number of tokens.
Each thread calls `linear` for blocks of its own. Tests: tests/vol3/cpu/kernels/test_linear.py.
"""

import numpy as np

from nano_llama.vol3_engine.cpu.aligned import aligned
from nano_llama.vol3_engine.cpu.isa import has_amx
from nano_llama.vol3_engine.cpu.jit.jit import kernel, noinline
from nano_llama.vol3_engine.cpu.kernels.activations import BFLOATS, BYTES, FLOATS, Activations
from nano_llama.vol3_engine.cpu.kernels.gemm_bf16_amx import gemm_bf16_amx
from nano_llama.vol3_engine.cpu.kernels.gemm_float import gemm_float
from nano_llama.vol3_engine.cpu.kernels.gemm_int8 import gemm_int8, gemv_int8
from nano_llama.vol3_engine.cpu.kernels.gemm_int8_amx import RING, gemm_int8_amx
from nano_llama.vol3_engine.cpu.kernels.kinds import F16, F32, FLOAT_KINDS, GROUP, LAYOUTS, UNIT, is_float
from nano_llama.vol3_engine.cpu.kernels.pack import BLOCK_ROWS, Matrix, unpack, unpack_groups
from nano_llama.vol3_engine.cpu.kernels.unpack import UNPACKED_UNIT

HAS_AMX = has_amx()
MIN_TOKENS_TO_UNPACK = 5 if HAS_AMX else 4  # from here on it pays to unpack the weights first
RING_BYTES = RING * 256 * 4


def linear_scratch(columns: int) -> np.ndarray:
    """Scratch memory that `linear` needs for matrices of at most so many columns; one for each thread."""
    units = -(-columns // UNIT)
    return aligned(max(RING_BYTES + 3 * units * UNPACKED_UNIT, 2 * units * UNIT * BLOCK_ROWS * 2))


def form_read(kind: int, prefill: bool) -> int:
    """The form of the activations that is multiplied with such weights, for prefill rows or for decode rows."""
    if prefill and HAS_AMX and kind not in (F32, F16):
        return BFLOATS
    return FLOATS if kind in FLOAT_KINDS else BYTES


@kernel
def linear(w, x, decode_rows, tokens, first, last, add, scratch, out):
    """Blocks first <= b < last of W x for the first `tokens` rows of x; added to `out` where `add`.

    Of these rows the first `decode_rows` are decode rows, the others prefill rows. w: Matrix; x: Activations and out
    (N, rows + padding), whose N is a multiple of 16 and at least 16 more than `tokens`; scratch: see `linear_scratch`.
    """
    noinline()
    if HAS_AMX and w.kind != F32 and w.kind != F16:
        if decode_rows < tokens:
            lines = scratch.view(np.uint16).reshape(-1, 32)
            gemm_bf16_amx(
                w, x.bfloats, begin=decode_rows, end=tokens, first=first, last=last, add=add, lines=lines, out=out
            )
        tokens = decode_rows
    if is_float(w.kind):
        gemm_float(w, x, tokens, first, last, add, out)
        return
    units = (w.columns + UNIT - 1) // UNIT
    unpacked = scratch[RING_BYTES:]
    if tokens < MIN_TOKENS_TO_UNPACK:
        for block in range(first, last):
            for n in range(tokens):
                gemv_int8(w, x, n, first=block, last=block + 1, units=units, add=add, out=out)
    elif HAS_AMX:
        ring = scratch[:RING_BYTES].view(np.int32).reshape(RING, 256)
        gemm_int8_amx(w, x, tokens, first, last, units=units, add=add, unpacked=unpacked, ring=ring, out=out)
    else:
        gemm_int8(w, x, tokens, first, last, units=units, add=add, unpacked=unpacked, out=out)


def linear_plain(w: Matrix, x: Activations, tokens: int) -> np.ndarray:
    """The reference for decode rows -> (N, rows) float32.

    The same steps in the same order, each rounded once (through float64).
    """
    acc = np.zeros((tokens, w.rows), np.float32)
    if w.kind in FLOAT_KINDS:
        weight = unpack(w).astype(np.float64)
        for k in range(w.columns):
            acc = (weight[:, k] * x.values[:tokens, k, None] + acc).astype(np.float32)
        return acc
    u, d, m = unpack_groups(w)
    min_acc = np.zeros_like(acc)
    scales, minima = (a.transpose(0, 2, 1).reshape(len(x.values), -1)[:tokens, :, None] for a in (x.scales, x.minima))
    for g in range(d.shape[1]):
        q = x.quantized[:tokens, GROUP * g : GROUP * (g + 1)].astype(np.int64)
        sums = (q @ (u[:, g].astype(np.int64) - LAYOUTS[w.kind].zero_point).T).astype(np.float64)  # (N, rows), exact
        acc = (sums * (d[:, g] * scales[:, g]) + acc).astype(np.float32)
        if m is not None:
            min_acc = (m[:, g].astype(np.float64) * minima[:, g] + min_acc).astype(np.float32)
    return acc + min_acc
