"""y = W x for packed matrices: picks, for the kind of the weights and the number of tokens, the kernel that fits.

    out[n, 16 b : 16 b + 16] = rows 16 b ... of W  .  x[n]       for tokens n, blocks first <= b < last

    of prompts, where there is AMX     gemm_bf16_amx.py, for bfloat16 and quantized weights
    floats                             gemm_float.py
    quantized, few tokens              dot_product.one_token, straight from the packed weights
    quantized, more                    unpack.py, then gemm_int8_amx.py (AMX) or gemm_int8.py, 4 tokens at a time

For tokens of prompts it is always the first, so whatever is picked, a row's bits are the same.
Not here: threads (each calls this for blocks of its own).
Tests: tests/vol3/cpu/kernels/test_linear.py.
"""

import numpy as np

from nano_llama.vol3_engine.cpu.isa import chosen_tier, has_room
from nano_llama.vol3_engine.cpu.jit.jit import keep_apart, kernel
from nano_llama.vol3_engine.cpu.kernels.activations import BFLOATS, BYTES, FLOATS, Activations
from nano_llama.vol3_engine.cpu.kernels.gemm_bf16_amx import prompt_blocks
from nano_llama.vol3_engine.cpu.kernels.gemm_float import float_blocks
from nano_llama.vol3_engine.cpu.kernels.gemm_int8 import four_tokens_one_block, four_tokens_three_blocks, one_token
from nano_llama.vol3_engine.cpu.kernels.gemm_int8_amx import RING, sixteen_tokens_one_block
from nano_llama.vol3_engine.cpu.kernels.pack import (
    F16,
    F32,
    GROUP,
    Q8,
    ROWS,
    UNIT,
    ZERO_POINT,
    Matrix,
    aligned,
    unpack,
    unpack_groups,
)
from nano_llama.vol3_engine.cpu.kernels.unpack import UNPACKED, has_minima, is_small, unpack_block, zero_point
from nano_llama.vol3_engine.cpu.simd.amx import CONFIGURATION, configure_tiles, release_tiles
from nano_llama.vol3_engine.cpu.simd.int8_dot import ZERO_TAKEN_OFF

TILES = chosen_tier() == "amx"
TOGETHER = 3 if has_room() else 1  # blocks that meet 4 tokens at once
MANY = 5 if TILES else 4  # tokens from which on it pays to take the weights apart first
RING_BYTES = RING * 256 * 4


def scratch_for(columns: int) -> np.ndarray:
    """What `linear` needs to work in, for matrices of at most so many columns; one for each thread."""
    units = -(-columns // UNIT)
    return aligned(max(RING_BYTES + 3 * units * UNPACKED, 2 * units * UNIT * ROWS * 2))


def form_read(kind: int, prompt: bool) -> int:
    """Which form of the activations is read with such weights: for a prompt's tokens, for those generated."""
    if prompt and TILES and kind not in (F32, F16):
        return BFLOATS
    return FLOATS if kind < Q8 else BYTES


@kernel
def linear(w, x, generated, tokens, first, last, add, scratch, out):
    """Blocks first <= b < last of W x for the first `tokens` rows of x; added to `out` where `add`.

    The rows from `generated` on are of prompts. w: Matrix; x: Activations and out (N, rows + padding), with room for a
    multiple of 16 rows and 16 more; scratch: see `scratch_for`.
    """
    keep_apart()
    if TILES and w.kind != F32 and w.kind != F16:
        if generated < tokens:
            lines = scratch.view(np.uint16).reshape(-1, 32)
            prompt_blocks(w, x.bfloats, generated, tokens, first, last, add, lines, out)
        tokens = generated
    if w.kind < Q8:
        width = 64 if w.kind == F32 else 32
        stride = w.columns * width if w.kind == F32 else (w.columns + 1) // 2 * 64
        float_blocks(w, x, tokens, first, last, stride, width, add, out)
        return
    units = (w.columns + UNIT - 1) // UNIT
    if tokens < MANY:
        for block in range(first, last):
            for n in range(tokens):
                one_token(w, x, n, block, block + 1, units, add, out)
    elif TILES:
        by_tiles(w, x, tokens, first, last, units, add, scratch, out)
    else:
        by_dots(w, x, tokens, first, last, units, add, scratch, out)


@kernel
def by_tiles(w, x, tokens, first, last, units, add, scratch, out):
    ring, bytes_ = scratch[:RING_BYTES].view(np.int32).reshape(RING, 256), scratch[RING_BYTES:]
    minima = has_minima(w.kind)
    configure_tiles(CONFIGURATION)
    for block in range(first, last):
        unpack_block(w, block, units, True, bytes_, 0)
        for n in range(0, tokens, 16):
            sixteen_tokens_one_block(bytes_, units, minima, x, n, tokens - n, ring, add, out, 16 * block)
    release_tiles()


@kernel
def by_dots(w, x, tokens, first, last, units, add, scratch, out):
    bytes_ = scratch[RING_BYTES:]
    small, minima = is_small(w.kind), has_minima(w.kind)
    signed = ZERO_TAKEN_OFF and not small
    zero = 0 if signed else zero_point(w.kind)
    block = first
    while block < last:
        together = TOGETHER if last - block >= TOGETHER else 1
        for i in range(together):
            unpack_block(w, block + i, units, signed, bytes_, i * units * UNPACKED)
        for n in range(0, tokens, 4):
            if together == 3:
                four_tokens_three_blocks(bytes_, units, zero, minima, x, n, tokens - n, add, out, 16 * block)
            else:
                four_tokens_one_block(bytes_, units, small, zero, minima, x, n, tokens - n, add, out, 16 * block)
        block += together


def linear_plain(w: Matrix, x: Activations, tokens: int) -> np.ndarray:
    """The plain twin, for tokens that were generated -> (N, rows) float32.

    By the same steps in the same order, each rounded once (through float64).
    """
    total = np.zeros((tokens, w.rows), np.float32)
    if w.kind < Q8:
        weight = unpack(w).astype(np.float64)
        for k in range(w.columns):
            total = (weight[:, k] * x.values[:tokens, k, None] + total).astype(np.float32)
        return total
    u, d, m = unpack_groups(w)
    least = np.zeros_like(total)
    scales, minima = (a.transpose(0, 2, 1).reshape(len(x.values), -1)[:tokens, :, None] for a in (x.scales, x.minima))
    for g in range(d.shape[1]):
        q = x.quantized[:tokens, GROUP * g : GROUP * (g + 1)].astype(np.int64)
        sums = (q @ (u[:, g].astype(np.int64) - ZERO_POINT[w.kind]).T).astype(np.float64)  # (N, rows), exact
        total = (sums * (d[:, g] * scales[:, g]) + total).astype(np.float32)
        if m is not None:
            least = (m[:, g].astype(np.float64) * minima[:, g] + least).astype(np.float32)
    return total + least
