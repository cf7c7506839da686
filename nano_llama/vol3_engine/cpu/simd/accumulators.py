"""Accumulators: a few rows of 16 lanes as one value. The number of rows is part of its type, so all stay in registers.

    acc = zeros(3)                          3 rows x 16 lanes
    acc = fma_rows(acc, v, a, i, k)         acc[r] = fma(v, a[i + r, k], acc[r])
    store_rows(out, i, k, acc)              out[i + r, k : k + 16] = acc[r]

A kernel that takes accumulators is compiled once for each number of rows.
Not here: single vectors (intrinsics.py). Tests: tests/vol3/cpu/simd/test_accumulators.py.
"""

from functools import cache

from llvmlite import ir
from numba import types
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic

from nano_llama.vol3_engine.cpu.simd.intrinsics import F32x16, Vector, broadcast, call, pointer

_FLOAT, _F32 = ir.FloatType(), ir.VectorType(ir.FloatType(), 16)


@cache
def accumulators_type(rows: int) -> Vector:
    """The type of accumulators with so many rows."""
    return Vector(f"F32x16 x {rows}", ir.ArrayType(_F32, rows))


def _rows(kind: Vector) -> int:
    return kind.shape.count


def _made(builder, kind, row):
    """The value whose r-th vector is row(r)."""
    acc = ir.Constant(kind.shape, ir.Undefined)
    for r in range(_rows(kind)):
        acc = builder.insert_value(acc, row(r), r)
    return acc


def _place(context, builder, sig, args, array, index, r, shape):
    """The address of a[i + r, k], where a, i and k are args[array] and two of args[index ...]."""
    i = builder.add(args[index], ir.Constant(args[index].type, r))
    return pointer(context, builder, sig.args[array], args[array], [i, args[index + 1]], shape)


@intrinsic(prefer_literal=True)
def zeros(typing_context, rows):
    """So many rows of zeros; their number must be a constant."""
    if not isinstance(rows, types.IntegerLiteral):
        raise RequireLiteralValue("the number of rows must be a constant")
    return accumulators_type(rows.literal_value)(rows), lambda context, builder, sig, args: ir.Constant(
        sig.return_type.shape, None
    )


@intrinsic
def num_rows(typing_context, acc):
    """Their number, a constant in compiled code."""
    return types.intp(acc), lambda context, builder, sig, args: ir.Constant(ir.IntType(64), _rows(sig.args[0]))


@intrinsic
def fma_rows(typing_context, acc, vector, array, i, k):
    """acc[r] = fma(vector, array[i + r, k], acc[r])."""

    def generate(context, builder, sig, args):
        def row(r):
            number = builder.load(_place(context, builder, sig, args, 2, 3, r, _FLOAT))
            return call(
                builder,
                "llvm.fma.v16f32",
                _F32,
                [args[1], broadcast(builder, number), builder.extract_value(args[0], r)],
            )

        return _made(builder, sig.return_type, row)

    return acc(acc, F32x16, array, types.intp, types.intp), generate


@intrinsic
def load_rows(typing_context, like, array, i, k):
    """array[i + r, k : k + 16], for as many rows as `like` has."""

    def generate(context, builder, sig, args):
        return _made(
            builder,
            sig.return_type,
            lambda r: builder.load(_place(context, builder, sig, args, 1, 2, r, _F32), align=1),
        )

    return like(like, array, types.intp, types.intp), generate


@intrinsic
def store_rows(typing_context, array, i, k, acc):
    """array[i + r, k : k + 16] = acc[r]."""

    def generate(context, builder, sig, args):
        for r in range(_rows(sig.args[3])):
            place = _place(context, builder, sig, args, 0, 1, r, _F32)
            builder.store(builder.extract_value(args[3], r), place, align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, acc), generate
