"""A block of a quantized matrix with a byte for each weight, in scratch memory that stays in the L1 or L2 cache.

Where many tokens share the same weights, nibbles are unpacked once for all of them. A unit of the scratch is always

    2 groups x 8 quads x 16 rows x 4 bytes, then 2 x 16 scales, 2 x 16 minima (float16)      1152 bytes

Tests: tests/vol3/cpu/kernels/test_linear.py.
"""

from nano_llama.vol3_engine.cpu.jit.jit import kernel
from nano_llama.vol3_engine.cpu.kernels.kinds import data_bytes, has_minima, is_4bit, unit_bytes, zero_point
from nano_llama.vol3_engine.cpu.simd.int8_dot import high_nibbles, low_nibbles, subtract_byte
from nano_llama.vol3_engine.cpu.simd.intrinsics import load_bytes, prefetch, store

UNPACKED_UNIT = 1152  # bytes of a unit
SCALES, MINIMA = 1024, 1088  # where they begin


@kernel
def unpack_block(w, block, units, signed, scratch, to):
    """Block `block` of w, whose blocks have `units` units, as bytes from scratch[to] on.

    signed: bytes become u - zero_point, for products of signed bytes; else they stay u.
    """
    size = unit_bytes(w.kind)
    offset = zero_point(w.kind) if signed else 0
    small = is_4bit(w.kind)
    data = data_bytes(w.kind)
    for unit in range(units):
        at = (block * units + unit) * size
        for line in range(0, size, 64):  # of the next block, while this one is multiplied
            prefetch(w.data, at + units * size + line)
        for line in range(data // 64):
            bytes_ = load_bytes(w.data, at + 64 * line)
            if small:
                store(scratch, to + 128 * line, subtract_byte(low_nibbles(bytes_), offset))
                store(scratch, to + 128 * line + 64, subtract_byte(high_nibbles(bytes_), offset))
            else:
                store(scratch, to + 64 * line, subtract_byte(bytes_, offset))
        store(scratch, to + SCALES, load_bytes(w.data, at + data))
        if has_minima(w.kind):
            store(scratch, to + MINIMA, load_bytes(w.data, at + data + 64))
        to += UNPACKED_UNIT
