"""Blocks of numbers that share a scale, quantized to nearest and dequantized to float32.

Layouts and rounding are those of ggml's reference (ggml-quants.c), bit for bit.
Not here: their names and sizes (kinds.py), which matrix gets which (quantization_scheme.py), gemms on packed blocks
(vol3_engine/cpu). Tests: tests/formats/test_gguf_quants.py, against the `gguf` library.

    kind          block  bytes   number =
    Q8_0             32     34   d q                   d: float16 scale, q: 8 bits, signed
    Q4_0, Q5_0       32  18, 22  d (q - 8), d (q - 16)
    Q4_1, Q5_1       32  20, 24  d q + m               m: float16 minimum
    Q4_K, Q5_K      256 144,176  d s q - m t           s, t: 6 bits each, per 32 numbers
    Q6_K            256    210   d s (q - 32)          s: 8 bits, signed, per 16 numbers
"""

from collections.abc import Callable

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.formats.dtypes import DTYPES
from nano_llama.formats.kinds import Kind

_CHUNK = 2**18  # numbers unpacked at a time: what fits the caches, and no tensor-sized temporaries


def row_bytes(kind: str, columns: int) -> int:
    """Bytes of a row of this many numbers. Raises UserError where the row is not whole blocks."""
    size, nbytes = Kind[kind].block_size, Kind[kind].block_bytes
    if columns % size:
        raise UserError(f"A row of {columns} numbers cannot be {kind}, which comes in blocks of {size}.")
    return columns // size * nbytes


def dequantize(kind: str, blocks: np.ndarray) -> np.ndarray:
    """uint8 (rows, bytes of a row) -> float32 (rows, columns)."""
    if kind in DTYPES:
        return blocks.view(DTYPES[kind]).astype(np.float32)
    size, nbytes = Kind[kind].block_size, Kind[kind].block_bytes
    rows, columns = blocks.shape[0], blocks.shape[1] // nbytes * size
    result = np.empty((rows, columns), np.float32)
    step = max(1, _CHUNK // columns)
    for start in range(0, rows, step):
        part = blocks[start : start + step].reshape(-1, nbytes)  # (blocks, bytes of a block)
        result[start : start + step] = _UNPACK[kind](part).reshape(-1, columns)
    return result


def quantize(kind: str, array: np.ndarray) -> np.ndarray:
    """(rows, columns) of any float type -> uint8 (rows, bytes of a row). Raises UserError for a kind not in _PACK."""
    rows, columns = array.shape
    if kind not in _PACK:
        raise UserError(f"Writing {kind} is not supported.", hint=f"Quantize to one of: {', '.join(_PACK)}.")
    result = np.empty((rows, row_bytes(kind, columns)), np.uint8)
    step = max(1, _CHUNK // columns)
    for start in range(0, rows, step):
        part = array[start : start + step].astype(np.float32).reshape(-1, Kind[kind].block_size)  # (blocks, numbers)
        result[start : start + step] = _PACK[kind](part).reshape(-1, result.shape[1])
    return result


# -- unpacking: (n, bytes of a block) uint8 -> (n, numbers) float32 ---------------------------------------------------


def _half(blocks: np.ndarray, at: int) -> np.ndarray:
    """The float16 at byte `at` of every block, as float32 (n, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(packed: np.ndarray) -> np.ndarray:
    """Low halves of all bytes, then high halves: (n, 16) -> (n, 32)."""
    return np.concatenate([packed & 0x0F, packed >> 4], axis=1)


def _fifth_bits(packed: np.ndarray) -> np.ndarray:
    """(n, 4) -> (n, 32): bit i is number i's fifth bit, moved to its place, 16."""
    return np.unpackbits(packed, axis=1, bitorder="little") << 4


def _unpack_q8_0(blocks: np.ndarray) -> np.ndarray:
    return blocks[:, 2:].view(np.int8).astype(np.float32) * _half(blocks, 0)


def _unpack_q4_0(blocks: np.ndarray) -> np.ndarray:
    return (_nibbles(blocks[:, 2:]).view(np.int8) - np.int8(8)).astype(np.float32) * _half(blocks, 0)


def _unpack_q4_1(blocks: np.ndarray) -> np.ndarray:
    return _nibbles(blocks[:, 4:]).astype(np.float32) * _half(blocks, 0) + _half(blocks, 2)


def _unpack_q5_0(blocks: np.ndarray) -> np.ndarray:
    q = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6])
    return (q.view(np.int8) - np.int8(16)).astype(np.float32) * _half(blocks, 0)


def _unpack_q5_1(blocks: np.ndarray) -> np.ndarray:
    q = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])
    return q.astype(np.float32) * _half(blocks, 0) + _half(blocks, 2)


def _k_scales(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Twelve bytes hold eight scales and eight minima of 6 bits: (n, 12) -> two of (n, 8) float32.

    Bytes 0-3 and 4-7 carry the first four of each in their low six bits. The other four have their low four bits in
    bytes 8-11 (scale low, minimum high) and their two top bits above the first four's.
    """
    first_s, first_m, rest = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([first_s & 63, (rest & 15) | (first_s >> 6) << 4], axis=1)
    minima = np.concatenate([first_m & 63, (rest >> 4) | (first_m >> 6) << 4], axis=1)
    return scales.astype(np.float32), minima.astype(np.float32)


def _k_affine(blocks: np.ndarray, q: np.ndarray) -> np.ndarray:
    """d s q - m t over eight groups: q (n, 8, 32) -> (n, 256)."""
    scales, minima = _k_scales(blocks[:, 4:16])
    d = (_half(blocks, 0) * scales)[:, :, None]  # (n, 8, 1)
    m = (_half(blocks, 2) * minima)[:, :, None]
    return (d * q.astype(np.float32) - m).reshape(len(blocks), 256)


def _k_nibbles(packed: np.ndarray) -> np.ndarray:
    """(n, 128) -> (n, 8, 32): each run of 32 bytes carries two groups, the first in its low halves."""
    runs = packed.reshape(-1, 4, 1, 32)
    return np.concatenate([runs & 0x0F, runs >> 4], axis=2).reshape(-1, 8, 32)


def _unpack_q4_k(blocks: np.ndarray) -> np.ndarray:
    return _k_affine(blocks, _k_nibbles(blocks[:, 16:]))


def _unpack_q5_k(blocks: np.ndarray) -> np.ndarray:
    fifth = blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1  # bit g of byte i: group g, number i
    return _k_affine(blocks, _k_nibbles(blocks[:, 48:]) | fifth << 4)


def _unpack_q6_k(blocks: np.ndarray) -> np.ndarray:
    """Two halves of 128 numbers: 64 bytes of low fours, 32 bytes of top twos, each in runs of 32."""
    low = blocks[:, :128].reshape(-1, 2, 1, 64)
    low = np.concatenate([low & 0x0F, low >> 4], axis=2).reshape(-1, 2, 4, 32)
    top = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    q = ((low | top << 4).view(np.int8) - np.int8(32)).reshape(-1, 16, 16)
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32)
    d = (_half(blocks, 208) * scales)[:, :, None]  # (n, 16, 1)
    return (d * q.astype(np.float32)).reshape(len(blocks), 256)


_UNPACK: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Q8_0": _unpack_q8_0, "Q4_0": _unpack_q4_0, "Q4_1": _unpack_q4_1, "Q5_0": _unpack_q5_0, "Q5_1": _unpack_q5_1,
    "Q4_K": _unpack_q4_k, "Q5_K": _unpack_q5_k, "Q6_K": _unpack_q6_k,
}  # fmt: skip


# -- packing: (n, numbers) float32 -> (n, bytes of a block) uint8 -----------------------------------------------------


def _inverse(d: np.ndarray) -> np.ndarray:
    """1/d, and 0 for a block of zeros."""
    return np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)


def _as_bytes(scale: np.ndarray) -> np.ndarray:
    return scale.astype("<f2").view(np.uint8)  # (n, 1) -> (n, 2)


def _pack_nibbles(q: np.ndarray) -> np.ndarray:
    return q[:, :16] | q[:, 16:] << 4


def _pack_q8_0(x: np.ndarray) -> np.ndarray:
    d = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)  # (n, 1)
    scaled = x * _inverse(d)
    q = np.copysign(np.floor(np.abs(scaled) + np.float32(0.5)), scaled)  # halves away from zero, as C's roundf
    return np.concatenate([_as_bytes(d), q.astype(np.int8).view(np.uint8)], axis=1)


def _pack_q4_0(x: np.ndarray) -> np.ndarray:
    """The number of largest magnitude, with its sign, becomes -8 exactly."""
    extreme = np.take_along_axis(x, np.abs(x).argmax(axis=1, keepdims=True), axis=1)
    d = extreme / np.float32(-8)
    q = np.minimum((x * _inverse(d) + np.float32(8.5)).astype(np.int32), 15).astype(np.uint8)
    return np.concatenate([_as_bytes(d), _pack_nibbles(q)], axis=1)


def _pack_q4_1(x: np.ndarray) -> np.ndarray:
    low, high = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
    d = (high - low) / np.float32(15)
    q = np.minimum(((x - low) * _inverse(d) + np.float32(0.5)).astype(np.int32), 15).astype(np.uint8)
    return np.concatenate([_as_bytes(d), _as_bytes(low), _pack_nibbles(q)], axis=1)


_PACK: dict[str, Callable[[np.ndarray], np.ndarray]] = {"Q8_0": _pack_q8_0, "Q4_0": _pack_q4_0, "Q4_1": _pack_q4_1}
