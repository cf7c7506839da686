"""A block of a quantized matrix with a byte for each weight, in scratch memory that stays in the nearest cache.

Where many tokens meet the same weights, nibbles are taken apart once for all of them. A unit of the scratch is always

    2 groups x 8 quads x 16 rows x 4 bytes, then 2 x 16 scales, 2 x 16 minima (float16)      1152 bytes

Not here: products (gemm_int8.py, gemm_int8_amx.py). Tests: tests/vol3/cpu/kernels/test_linear.py.
"""

from nano_llama.vol3_engine.cpu.jit.jit import kernel
from nano_llama.vol3_engine.cpu.kernels.pack import BYTES_OF_UNIT, Q4, Q4M, Q8
from nano_llama.vol3_engine.cpu.simd.int8_dot import high_nibbles, low_nibbles, subtract_byte
from nano_llama.vol3_engine.cpu.simd.intrinsics import load_bytes, prefetch, store

UNPACKED_UNIT = 1152  # bytes of a unit
SCALES, MINIMA = 1024, 1088  # where they begin


@kernel
def is_4bit(kind):
    """Whether two weights share a byte."""
    return kind in (Q4, Q4M)


@kernel
def has_minima(kind):
    return kind == Q4M


@kernel
def zero_point(kind):
    """The byte that stands for 0."""
    if kind == Q8:
        return 128
    return 8 if kind == Q4 else 0


@kernel
def unpack_block(w, block, units, signed, scratch, to):
    """Block `block` of w, whose blocks have `units` units, as bytes from scratch[to] on.

    signed: bytes become u - zero_point, for products of signed bytes; else they stay u.
    """
    size = BYTES_OF_UNIT[w.kind]
    less = zero_point(w.kind) if signed else 0
    small = is_4bit(w.kind)
    data = 512 if small else 1024
    for unit in range(units):
        at = (block * units + unit) * size
        for line in range(0, size, 64):  # the next block's, while this one is multiplied
            prefetch(w.data, at + units * size + line)
        for line in range(data // 64):
            bytes_ = load_bytes(w.data, at + 64 * line)
            if small:
                store(scratch, to + 128 * line, subtract_byte(low_nibbles(bytes_), less))
                store(scratch, to + 128 * line + 64, subtract_byte(high_nibbles(bytes_), less))
            else:
                store(scratch, to + 64 * line, subtract_byte(bytes_, less))
        store(scratch, to + SCALES, load_bytes(w.data, at + data))
        if has_minima(w.kind):
            store(scratch, to + MINIMA, load_bytes(w.data, at + data + 64))
        to += UNPACKED_UNIT
