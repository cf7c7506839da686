"""AMX tiles of int8: a product of matrices, 16 x 32 times 32 x 16, in one instruction.

A tile holds up to 16 rows of 64 bytes. For one group of 32 columns,

    A: 16 tokens x 32 bytes     B: 8 quads x (16 rows of the matrix x 4 bytes)     C: 16 tokens x 16 sums (int32)

and B is exactly how kernels/pack.py lays out a group of a block. A thread configures its tiles before it uses them and
releases them afterwards. These intrinsics compile on every CPU; only kernels for "amx" may run them.
Intel Architecture Instruction Set Extensions Programming Reference, chapter 3 (319433).
Not here: tiles of bfloat16 (amx_bf16.py). Tests: tests/vol3/cpu/simd/test_amx.py.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nano_llama.vol3_engine.cpu.simd.intrinsics import F32x16, Vector, broadcast, call, pointer

_I8, _I64, _VOID = ir.IntType(8), ir.IntType(64), ir.VoidType()
C, A, B = 0, 1, 2  # tile registers


def _configuration() -> np.ndarray:
    """The 64 bytes of the ldtilecfg instruction: bytes per row (16-bit, from byte 16 on), rows (from byte 48 on)."""
    bytes_ = np.zeros(64, np.uint8)
    bytes_[0] = 1  # palette 1
    for tile, rows, row_bytes in ((C, 16, 64), (A, 16, 32), (B, 8, 64)):
        bytes_[16 + 2 * tile], bytes_[48 + tile] = row_bytes, rows
    return bytes_


INT8_TILES = _configuration()


def _tile(number):
    return ir.Constant(_I8, number)


@intrinsic
def configure_tiles(typing_context, configuration):
    """Set the shapes of this thread's tiles: configure_tiles(INT8_TILES)."""

    def generate(context, builder, sig, args):
        place = pointer(context, builder, sig.args[0], args[0], [ir.Constant(_I64, 0)], _I8)
        call(builder, "llvm.x86.ldtilecfg", _VOID, [place])
        return context.get_dummy_value()

    return types.void(configuration), generate


@intrinsic
def release_tiles(typing_context):
    """Release this thread's tiles: a thread without tiles is cheaper to switch."""

    def generate(context, builder, sig, args):
        call(builder, "llvm.x86.tilerelease", _VOID, [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def tile_product(typing_context, x, n, k, w, at, out, side):
    """out[side, 16 t + r] = sum over 32 columns of x[n + t, k + ...] * w[at + ...], 16 tokens t, 16 rows r.

    x (N,C) int8; w: signed bytes, a group of a block as kernels/pack.py lays it out; out (2, 256) int32.
    """

    def generate(context, builder, sig, args):
        shape = context.make_array(sig.args[0])(context, builder, args[0]).shape
        stride = cgutils.unpack_tuple(builder, shape)[1]
        line = ir.Constant(_I64, 64)
        call(builder, "llvm.x86.tilezero", _VOID, [_tile(C)])
        place = pointer(context, builder, sig.args[0], args[0], [args[1], args[2]], _I8)
        call(builder, "llvm.x86.tileloadd64", _VOID, [_tile(A), place, stride])
        place = pointer(context, builder, sig.args[3], args[3], [args[4]], _I8)
        call(builder, "llvm.x86.tileloadd64", _VOID, [_tile(B), place, line])
        call(builder, "llvm.x86.tdpbssd", _VOID, [_tile(C), _tile(A), _tile(B)])
        place = pointer(context, builder, sig.args[5], args[5], [args[6], ir.Constant(_I64, 0)], _I8)
        call(builder, "llvm.x86.tilestored64", _VOID, [_tile(C), place, line])
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, w, types.intp, out, types.intp), generate


# -- scaling and adding products: 16 x 16 float accumulators, kept in registers ---------------------------------------

TileSums = Vector("TileSums", ir.ArrayType(ir.VectorType(ir.FloatType(), 16), 16))  # a vector for each token


def _floats_at(context, builder, kind, array, indices, shape):
    return builder.load(pointer(context, builder, kind, array, indices, shape), align=1)


def _for_each_token(context, builder, sig, args, update):
    """`update(token, sum)` for the 16 vectors of args[0]."""
    sums = args[0]
    for token in range(16):
        sums = builder.insert_value(sums, update(token, builder.extract_value(sums, token)), token)
    return sums


@intrinsic
def zero_tile_sums(typing_context):
    """All zero."""

    def generate(context, builder, sig, args):
        return ir.Constant(sig.return_type.shape, None)

    return TileSums(), generate


@intrinsic
def add_scaled_product(typing_context, sums, product, side, d, scales, tile, group):
    """sums[t] = fma(float(product[side, 16 t : 16 t + 16]), d * scales[tile, group, t], sums[t]), t = 0 ... 15."""

    def generate(context, builder, sig, args):
        def update(t, acc):
            place = [args[2], ir.Constant(_I64, 16 * t)]
            products = _floats_at(context, builder, sig.args[1], args[1], place, ir.VectorType(ir.IntType(32), 16))
            place = [args[5], args[6], ir.Constant(_I64, t)]
            scale = _floats_at(context, builder, sig.args[4], args[4], place, ir.FloatType())
            scale = builder.fmul(args[3], broadcast(builder, scale))
            floats = builder.sitofp(products, scale.type)
            return call(builder, "llvm.fma.v16f32", scale.type, [floats, scale, acc])

        return _for_each_token(context, builder, sig, args, update)

    return TileSums(sums, product, types.intp, F32x16, scales, types.intp, types.intp), generate


@intrinsic
def add_minima(typing_context, sums, m, minima, tile, group):
    """sums[t] = fma(m, minima[tile, group, t], sums[t]), t = 0 ... 15."""

    def generate(context, builder, sig, args):
        def update(t, acc):
            place = [args[3], args[4], ir.Constant(_I64, t)]
            factor = _floats_at(context, builder, sig.args[2], args[2], place, ir.FloatType())
            return call(builder, "llvm.fma.v16f32", acc.type, [args[1], broadcast(builder, factor), acc])

        return _for_each_token(context, builder, sig, args, update)

    return TileSums(sums, F32x16, minima, types.intp, types.intp), generate


@intrinsic
def store_tile_sums(typing_context, out, side, sums):
    """out[side, 16 t : 16 t + 16] = sums[t], as floats, t = 0 ... 15."""

    def generate(context, builder, sig, args):
        for t in range(16):
            vector = builder.extract_value(args[2], t)
            place = [args[1], ir.Constant(_I64, 16 * t)]
            builder.store(vector, pointer(context, builder, sig.args[0], args[0], place, vector.type), align=1)
        return context.get_dummy_value()

    return types.void(out, types.intp, sums), generate
