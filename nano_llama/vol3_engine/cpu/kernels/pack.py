"""How matrices lie in memory: 16 rows interleaved, so that lanes are rows and no sum ever runs across lanes.

A weight matrix (rows, columns) is cut into blocks of 16 rows. A block is read once from start to end, a unit at a time:

    F32           unit of 1 column     16 floats                                                            64 bytes
    BF16, F16     unit of 2 columns    2 x 16 halves                                                        64 bytes
    Q8_0          unit of 64 columns   2 groups x 8 quads x 16 rows x 4 bytes, then 2 x 16 scales
    Q4_0, Q4_1    unit of 64 columns   2 groups x 4 pairs x 16 rows x 4 bytes, then 2 x 16 scales (, 2 x 16 minima)

A group is 32 columns of a row with a scale d, and in Q4_1 a minimum m, as float16. A byte u stands for the weight
d (u - 128)  in Q8_0; a pair's byte holds two quads' nibbles, low and high, and a nibble u stands for  d (u - 8)  in
Q4_0, d u + m  in Q4_1: the weights of ggml's blocks, without loss.
Rows and columns are padded with zeros to whole blocks and units; every unit begins at a multiple of 64 bytes.
Tests: tests/vol3/cpu/kernels/test_pack.py.
"""

from typing import NamedTuple

import ml_dtypes
import numpy as np

from nano_llama.vol3_engine.cpu.aligned import aligned
from nano_llama.vol3_engine.cpu.kernels.kinds import BF16, F16, F32, FLOAT_KINDS, GROUP, LAYOUTS, Q4_1, Q8_0, UNIT

BLOCK_ROWS = 16
_DTYPES = {F32: np.dtype(np.float32), BF16: np.dtype(ml_dtypes.bfloat16), F16: np.dtype(np.float16)}


class Matrix(NamedTuple):
    """A packed matrix. One type for all kinds, so that compiled code chooses by `kind` when it runs."""

    kind: int
    rows: int  # without padding
    columns: int  # without padding
    data: np.ndarray  # uint8, begins at a multiple of 64 bytes

    @property
    def blocks(self) -> int:
        return -(-self.rows // BLOCK_ROWS)


def units_of(kind: int, columns: int) -> int:
    """Of one block."""
    return -(-columns // LAYOUTS[kind].columns)


def packed_bytes(kind: int, rows: int, columns: int) -> int:
    return -(-rows // BLOCK_ROWS) * units_of(kind, columns) * LAYOUTS[kind].unit_bytes


def pack_floats(weight: np.ndarray, kind: int) -> Matrix:
    """weight (rows, columns) of any float type -> F32, BF16 or F16.

    column 0: row 0, row 1, ... row 15; column 1: ...      for each block of 16 rows
    """
    rows, columns = weight.shape
    dtype = _DTYPES[kind]
    data = aligned(packed_bytes(kind, rows, columns))
    blocks = data.view(dtype).reshape(-(-rows // BLOCK_ROWS), -1, BLOCK_ROWS)  # (blocks, columns + padding, 16)
    padded = _padded(weight.astype(dtype, copy=False), len(blocks) * BLOCK_ROWS, columns)
    blocks[:, :columns] = padded.reshape(-1, BLOCK_ROWS, columns).transpose(0, 2, 1)
    return Matrix(kind, rows, columns, data)


def pack_groups(kind: int, u: np.ndarray, d: np.ndarray, m: np.ndarray | None = None) -> Matrix:
    """u (rows, columns) uint8: bytes or nibbles as in the header, d and m (rows, columns / 32) float16.

    columns must be whole groups.
    """
    rows, columns = u.shape
    assert columns % GROUP == 0 and (m is None) == (kind != Q4_1), "whole groups, minima where the kind has them"
    blocks, units = -(-rows // BLOCK_ROWS), units_of(kind, columns)
    data = aligned(packed_bytes(kind, rows, columns))
    out = data.reshape(blocks, units, -1)
    u = _padded(u, blocks * BLOCK_ROWS, units * UNIT)
    if kind == Q8_0:
        quads = u.reshape(blocks, BLOCK_ROWS, units, 2, 8, 4)
        out[..., :1024] = quads.transpose(0, 2, 3, 4, 1, 5).reshape(blocks, units, 1024)
    else:
        quads = u.reshape(blocks, BLOCK_ROWS, units, 2, 4, 2, 4)
        quads = quads.transpose(0, 2, 3, 4, 5, 1, 6)  # (..., pair, low/high, row, 4)
        out[..., :512] = (quads[..., 0, :, :] | quads[..., 1, :, :] << 4).reshape(blocks, units, 512)
    begin = LAYOUTS[kind].data_bytes
    for halves in (d, m):
        if halves is not None:
            halves = _padded(np.asarray(halves, np.float16), blocks * BLOCK_ROWS, units * 2).reshape(
                blocks, BLOCK_ROWS, units, 2
            )
            out[..., begin : begin + 64] = (
                np.ascontiguousarray(halves.transpose(0, 2, 3, 1)).view(np.uint8).reshape(blocks, units, 64)
            )
            begin += 64
    return Matrix(kind, rows, columns, data)


def _padded(array: np.ndarray, rows: int, columns: int) -> np.ndarray:
    if array.shape == (rows, columns):
        return np.ascontiguousarray(array)
    whole = np.zeros((rows, columns), array.dtype)
    whole[: array.shape[0], : array.shape[1]] = array
    return whole


def unpack(matrix: Matrix) -> np.ndarray:
    """The weights of a packed matrix, (rows, columns) float32. The reference for every kernel starts from this."""
    kind, rows, columns, data = matrix
    if kind in FLOAT_KINDS:
        blocks = data.view(_DTYPES[kind]).reshape(matrix.blocks, -1, BLOCK_ROWS)[:, :columns]
        return blocks.transpose(0, 2, 1).reshape(-1, columns)[:rows].astype(np.float32)
    u, d, m = unpack_groups(matrix)
    weight = (u.astype(np.float32) - LAYOUTS[kind].zero_point) * d[..., None]
    return (weight if m is None else weight + m[..., None]).reshape(rows, -1)[:, :columns]


def unpack_groups(matrix: Matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """A quantized matrix unpacked: u (rows, groups, 32) uint8, d and m (rows, groups) float32, padding included."""
    kind, rows, columns, data = matrix
    blocks, units = matrix.blocks, units_of(kind, columns)
    out = data.reshape(blocks, units, LAYOUTS[kind].unit_bytes)
    begin = LAYOUTS[kind].data_bytes
    if kind == Q8_0:
        u = out[..., :begin].reshape(blocks, units, 2, 8, BLOCK_ROWS, 4)
    else:
        pairs = out[..., :begin].reshape(blocks, units, 2, 4, 1, BLOCK_ROWS, 4)
        u = np.concatenate((pairs & 15, pairs >> 4), axis=4).reshape(blocks, units, 2, 8, BLOCK_ROWS, 4)
    u = u.transpose(0, 4, 1, 2, 3, 5).reshape(blocks * BLOCK_ROWS, units * 2, GROUP)[:rows]

    def halves(begin: int) -> np.ndarray:
        stored = (
            np.ascontiguousarray(out[..., begin : begin + 64]).view(np.float16).reshape(blocks, units, 2, BLOCK_ROWS)
        )
        return stored.transpose(0, 3, 1, 2).reshape(blocks * BLOCK_ROWS, units * 2)[:rows].astype(np.float32)

    return u, halves(begin), halves(begin + 64) if kind == Q4_1 else None
