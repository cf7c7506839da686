"""Intrinsics for bytes: nibbles unpacked, and dot products, whose instructions LLVM does not find by itself.

    dot            u * x for 4 bytes of each of 16 lanes, added to 32 bits, exactly
    dot_nibbles    the same where u <= 15; on AVX2 eight of them fit into 16 bits, in a third of the time
    dot_signed     the same; on AVX2 of signed weights w = u - 128, in half the time

Their instructions depend on the instruction set (isa.py), their results do not. Their references are lines of NumPy in
tests/vol3/cpu/simd/test_intrinsics.py. Not here: floats, integers and loads (intrinsics.py).
"""

from llvmlite import ir
from llvmlite.binding import llvm_version_info
from numba import types

from nano_llama.vol3_engine.cpu.isa import selected_isa
from nano_llama.vol3_engine.cpu.simd.intrinsics import B8x64, I32x16, Vector, call, i32_constant, vector_op

_I8, _I16, _I32 = (ir.IntType(bits) for bits in (8, 16, 32))
_I32X16, _B8 = I32x16.shape, B8x64.shape
_ISA = selected_isa()
SIGNED_WEIGHTS = _ISA == "avx2"  # whether dot_signed takes w = u - 128 instead of u
NibbleSums = Vector("I16x32", ir.VectorType(_I16, 32)) if _ISA == "avx2" else I32x16  # the accumulator of dot_nibbles


@vector_op(B8x64, B8x64)
def low_nibbles(b, x):
    """x & 15, byte by byte."""
    return b.and_(x, ir.Constant(_B8, [15] * 64))


@vector_op(B8x64, B8x64)
def high_nibbles(b, x):
    """x >> 4, byte by byte."""
    wide = b.lshr(b.bitcast(x, _I32X16), i32_constant(4))
    return b.and_(b.bitcast(wide, _B8), ir.Constant(_B8, [15] * 64))


@vector_op(B8x64, B8x64, types.int64)
def subtract_byte(b, x, amount):
    """x - amount, byte by byte, wrapping around."""
    first = b.insert_element(ir.Constant(_B8, ir.Undefined), b.trunc(amount, _I8), ir.Constant(_I32, 0))
    return b.sub(
        x, b.shuffle_vector(first, ir.Constant(_B8, ir.Undefined), ir.Constant(ir.VectorType(_I32, 64), [0] * 64))
    )


@vector_op(I32x16, I32x16, B8x64, B8x64)
def dot(b, acc, u, x):
    """acc + (u * x).reshape(16, 4).sum(1), for unsigned bytes u and signed bytes x, exactly."""
    return _DOT[_ISA](b, acc, u, x)


@vector_op(NibbleSums)
def zero_nibble_sums(b):
    """The first accumulator of dot_nibbles."""
    return ir.Constant(NibbleSums.shape, [0] * NibbleSums.shape.count)


@vector_op(NibbleSums, NibbleSums, B8x64, B8x64)
def dot_nibbles(b, acc, u, x):
    """`dot` for bytes u <= 15 and |x| <= 127, up to 8 times from zero_nibble_sums on.

    16 products are then at most 30,480, which 16 bits hold. AVX2 has an instruction for pairs of such products, which
    takes a third of the time of `dot`.
    """
    if NibbleSums is I32x16:
        return _DOT[_ISA](b, acc, u, x)

    def half(acc, u, x):
        return b.add(acc, call(b, "llvm.x86.avx2.pmadd.ub.sw", acc.type, [u, x]))

    return _per_half(b, half, acc, u, x)


@vector_op(I32x16, NibbleSums, NibbleSums)
def add_nibble_sums(b, one, other):
    """The sum of two chains of dot_nibbles, at most 8 in all."""
    both = b.add(one, other)
    return both if NibbleSums is I32x16 else _per_half(b, lambda pairs: _add_pairs(b, pairs), both)


@vector_op(I32x16, I32x16, B8x64, B8x64)
def dot_signed(b, acc, w, x):
    """`dot`; or, where SIGNED_WEIGHTS, of signed bytes w = u - 128: acc + (w * x).reshape(16, 4).sum(1), |x| <= 127.

    By |w| * (x with the sign of w): a pair's two products are at most 2 * 128 * 127 = 32,512, which 16 bits hold.
    """
    if not SIGNED_WEIGHTS:
        return _DOT[_ISA](b, acc, w, x)

    def half(acc, w, x):
        magnitude = call(b, "llvm.abs.v32i8", w.type, [w, ir.Constant(ir.IntType(1), 0)])
        signed = call(b, "llvm.x86.avx2.psign.b", w.type, [x, w])
        pairs = call(b, "llvm.x86.avx2.pmadd.ub.sw", ir.VectorType(_I16, 16), [magnitude, signed])
        return b.add(acc, _add_pairs(b, pairs))

    return _per_half(b, half, acc, w, x)


def _add_pairs(b, pairs):
    """Adjacent pairs of 16 16-bit integers, added to 8 of 32 bits."""
    ones = ir.Constant(pairs.type, [1] * 16)
    return call(b, "llvm.x86.avx2.pmadd.wd", ir.VectorType(_I32, 8), [pairs, ones])


def _dot_vnni(b, acc, u, x):
    return _vpdpbusd(b, 512, acc, u, x)


def _dot_avxvnni(b, acc, u, x):
    return _per_half(b, lambda *parts: _vpdpbusd(b, 256, *parts), acc, u, x)


def _vpdpbusd(b, bits, acc, u, x):
    if llvm_version_info < (21,):  # earlier, the operands were vectors of 32-bit integers
        u, x = b.bitcast(u, acc.type), b.bitcast(x, acc.type)
    return call(b, f"llvm.x86.avx512.vpdpbusd.{bits}", acc.type, [acc, u, x])


def _dot_avx2(b, acc, u, x):
    """Bytes 0 and 2 of each lane, then 1 and 3, as pairs of 16-bit integers: a pair's two products cannot overflow."""

    def half(acc, u, x):
        pairs, sums = ir.VectorType(_I16, 16), ir.VectorType(_I32, 8)
        u, x = b.bitcast(u, pairs), b.bitcast(x, pairs)
        eight = ir.Constant(pairs, [8] * 16)
        for even, odd in (
            (b.and_(u, ir.Constant(pairs, [255] * 16)), b.ashr(b.shl(x, eight), eight)),
            (b.lshr(u, eight), b.ashr(x, eight)),
        ):
            acc = b.add(acc, call(b, "llvm.x86.avx2.pmadd.wd", sums, [even, odd]))
        return acc

    return _per_half(b, half, acc, u, x)


def _dot_generic(b, acc, u, x):
    u, x = b.bitcast(u, _I32X16), b.bitcast(x, _I32X16)
    for byte in range(4):
        one = b.and_(b.lshr(u, i32_constant(8 * byte)), i32_constant(255))
        other = b.ashr(b.shl(x, i32_constant(24 - 8 * byte)), i32_constant(24))
        acc = b.add(acc, b.mul(one, other))
    return acc


def _per_half(b, operation, *vectors):
    """The operation on the lower and on the upper halves of the vectors; the two results concatenated."""

    def part(vector, start, count):
        places = ir.Constant(ir.VectorType(_I32, count), list(range(start, start + count)))
        return b.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), places)

    low, high = (operation(*(part(v, side * v.type.count // 2, v.type.count // 2) for v in vectors)) for side in (0, 1))
    lanes = 2 * low.type.count
    return b.shuffle_vector(low, high, ir.Constant(ir.VectorType(_I32, lanes), list(range(lanes))))


_DOT = {
    "generic": _dot_generic, "avx2": _dot_avx2, "avxvnni": _dot_avxvnni, "avx512": _dot_vnni, "amx": _dot_vnni,
}  # fmt: skip
