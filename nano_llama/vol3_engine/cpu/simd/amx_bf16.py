"""AMX tiles of bfloat16: a product of matrices, 16 x 32 times 32 x 16, in one instruction, and a gemm made of it.

    load_tile(A, x, n, k)          16 rows of x from (n, k) on, 64 bytes each
    multiply_tiles(C, A, B)        C[t, r] += sum over 32 columns of A[t, c] B[c, r], in float32
    store_tile(C, out, n, r)
    gemm_tiles_bf16                2 x 2 of these, along all columns

    A: 16 rows x 32 bfloat16     B: 16 pairs of columns x (16 rows of the matrix x 2)     C: 16 x 16 float32

A tile register is named by a constant, 0 ... 7; whoever calls these has configured them with BF16_TILES. The CPU does
not say in which order it adds, so results are held to a bound, not to a twin's bits; subnormal numbers count as zero.
Intel Architecture Instruction Set Extensions Programming Reference, chapter 3 (319433).
Not here: tiles of bytes (amx.py). Tests: tests/vol3/cpu/simd/test_amx_bf16.py.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic

from nano_llama.vol3_engine.cpu.jit.jit import kernel
from nano_llama.vol3_engine.cpu.simd.intrinsics import call, pointer

_I8, _I64, _VOID = ir.IntType(8), ir.IntType(64), ir.VoidType()


def _configuration() -> np.ndarray:
    """The 64 bytes of the ldtilecfg instruction: all eight tiles have 16 rows of 64 bytes."""
    bytes_ = np.zeros(64, np.uint8)
    bytes_[0] = 1  # palette 1
    bytes_[16:32:2], bytes_[48:56] = 64, 16
    return bytes_


BF16_TILES = _configuration()
TILE_PAIRS = 16  # pairs of columns in a tile: its B has a line of 64 bytes for each
C00, C01, C10, C11, A0, A1, B0, B1 = range(8)  # tile registers: C10 holds rows 16-31 times block 0


def _literal(number):
    if not isinstance(number, types.IntegerLiteral):
        raise RequireLiteralValue("a tile register must be a constant")
    return ir.Constant(_I8, number.literal_value)


def _place(context, builder, sig, args):
    """The address of element (i, j) of args[1], and the bytes from one row to the next."""
    array = sig.args[1]
    place = pointer(context, builder, array, args[1], [args[2], args[3]], _I8)
    columns = cgutils.unpack_tuple(builder, context.make_array(array)(context, builder, args[1]).shape)[1]
    return place, builder.mul(columns, ir.Constant(_I64, array.dtype.bitwidth // 8))


def _tile_move(name, instruction):
    def typed(typing_context, register, array, i, j):
        tile = _literal(register)

        def generate(context, builder, sig, args):
            place, stride = _place(context, builder, sig, args)
            call(builder, instruction, _VOID, [tile, place, stride])
            return context.get_dummy_value()

        return types.void(register, array, types.intp, types.intp), generate

    typed.__name__ = typed.__qualname__ = name
    return intrinsic(prefer_literal=True)(typed)


load_tile = _tile_move("load_tile", "llvm.x86.tileloadd64")
store_tile = _tile_move("store_tile", "llvm.x86.tilestored64")


@intrinsic(prefer_literal=True)
def clear_tile(typing_context, register):
    """All zero."""
    tile = _literal(register)

    def generate(context, builder, sig, args):
        call(builder, "llvm.x86.tilezero", _VOID, [tile])
        return context.get_dummy_value()

    return types.void(register), generate


@intrinsic(prefer_literal=True)
def multiply_tiles(typing_context, c, a, b):
    """C += A B."""
    tiles = [_literal(number) for number in (c, a, b)]

    def generate(context, builder, sig, args):
        call(builder, "llvm.x86.tdpbf16ps", _VOID, tiles)
        return context.get_dummy_value()

    return types.void(c, a, b), generate


@kernel
def gemm_tiles_bf16(x, n, lines, pairs, out, column, two_row_tiles, two_blocks, accumulate):
    """out[n : n + 32, column : column + 32] = x[n : n + 32] (bfloat16) times two blocks of 16 rows; += if `accumulate`.

    Only 16 rows of x, or one block, where there are not two. lines: the `pairs` lines of one block, then of the other.
    """
    if accumulate:
        load_tile(C00, out, n, column)
        if two_blocks:
            load_tile(C01, out, n, column + 16)
        if two_row_tiles:
            load_tile(C10, out, n + 16, column)
            if two_blocks:
                load_tile(C11, out, n + 16, column + 16)
    else:
        clear_tile(C00)
        clear_tile(C01)
        clear_tile(C10)
        clear_tile(C11)
    for pair in range(0, pairs, TILE_PAIRS):
        load_tile(A0, x, n, 2 * pair)
        load_tile(B0, lines, pair, 0)
        multiply_tiles(C00, A0, B0)
        if two_blocks:
            load_tile(B1, lines, pairs + pair, 0)
            multiply_tiles(C01, A0, B1)
        if two_row_tiles:
            load_tile(A1, x, n + 16, 2 * pair)
            multiply_tiles(C10, A1, B0)
            if two_blocks:
                multiply_tiles(C11, A1, B1)
    store_tile(C00, out, n, column)
    if two_blocks:
        store_tile(C01, out, n, column + 16)
    if two_row_tiles:
        store_tile(C10, out, n + 16, column)
        if two_blocks:
            store_tile(C11, out, n + 16, column + 16)
