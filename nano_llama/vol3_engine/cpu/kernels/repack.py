"""ggml's blocks of 32 numbers into packed matrices, group by group, without dequantizing a number.

    in a file     Q4_0, Q4_1   half d (, half m), 16 bytes: byte j holds number j low, number j + 16 high
                  Q8_0         half d, 32 signed bytes

Both sides agree on what a group is (pack.py), so this only moves bits. The reference is pack.pack_groups.
Tests: tests/vol3/cpu/kernels/test_repack.py.
"""

import numpy as np
from numba import njit

from nano_llama.formats.kinds import Kind
from nano_llama.vol3_engine.cpu.jit.jit import kernel
from nano_llama.vol3_engine.cpu.kernels.kinds import Q4_1, Q8_0, has_minima, unit_bytes
from nano_llama.vol3_engine.cpu.kernels.pack import BLOCK_ROWS

Q8_0_BYTES, Q4_0_BYTES, Q4_1_BYTES = (kind.block_bytes for kind in (Kind.Q8_0, Kind.Q4_0, Kind.Q4_1))


@njit(nogil=True, _nrt=False, error_model="numpy")
def repack(kind, blocks, order, first, last, out):
    """Rows of `blocks` (rows, bytes of a row) uint8 become rows first ... last-1 of a packed matrix.

    order (rows of the matrix, padded to 16): the row that each one is taken from, -1 for none; out (bytes,) uint8.
    """
    size = Q8_0_BYTES if kind == Q8_0 else (Q4_1_BYTES if kind == Q4_1 else Q4_0_BYTES)
    groups = blocks.shape[1] // size
    units, size_out = (groups + 1) // 2, unit_bytes(kind)
    for row in range(first, last):
        source = order[row]
        if source < 0:
            continue
        for group in range(groups):
            unit = (row // BLOCK_ROWS * units + group // 2) * size_out
            if kind == Q8_0:
                repack_bytes(blocks[source], size * group, out, unit, group % 2, row % BLOCK_ROWS)
            else:
                repack_nibbles(blocks[source], size * group, has_minima(kind), out, unit, group % 2, row % BLOCK_ROWS)


@kernel
def repack_bytes(blocks, at, out, unit, side, r):
    for i in range(32):
        out[unit + 512 * side + 64 * (i // 4) + 4 * r + i % 4] = blocks[at + 2 + i] ^ 128
    place = unit + 1024 + 32 * side + 2 * r
    out[place], out[place + 1] = blocks[at], blocks[at + 1]


@kernel
def repack_nibbles(blocks, at, minima, out, unit, side, r):
    bytes_ = at + 4 if minima else at + 2
    for i in range(4):
        for pair in range(2):  # numbers 8 pair ... 8 pair + 7, and those 16 after them
            even, odd = blocks[bytes_ + 8 * pair + i], blocks[bytes_ + 8 * pair + 4 + i]
            place = unit + 256 * side + 64 * pair + 4 * r + i
            out[place] = (even & 15) | (odd & 15) << 4
            out[place + 128] = (even >> 4) | (odd >> 4) << 4
    place = unit + 512 + 32 * side + 2 * r
    out[place], out[place + 1] = blocks[at], blocks[at + 1]
    if minima:
        out[place + 64], out[place + 65] = blocks[at + 2], blocks[at + 3]


def whole_blocks(order: np.ndarray) -> np.ndarray:
    """A row order, padded with -1 to a multiple of 16 rows."""
    return np.concatenate([order, np.full(-len(order) % BLOCK_ROWS, -1)]).astype(np.int64)
