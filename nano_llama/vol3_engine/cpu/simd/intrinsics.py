"""SIMD intrinsics: vectors of 16 lanes as values of compiled code.

    acc = splat(0.0)                                  an F32x16
    for k in range(columns):
        acc = fma(load(weights, 16 * k), splat(x[n, k]), acc)
    store(out, 16 * block, acc)

    F32x16   16 floats        I32x16   16 integers        B8x64    64 bytes, four per lane

`load(array, i)` and `store(array, i, v)` take typed arrays (C order) and an index for each dimension; nothing here
takes an address, and nothing checks bounds. LLVM maps a vector onto whatever registers there are (one of AVX-512, two
of AVX2, four of NEON), so nothing here depends on the instruction set.
The reference for each intrinsic is one line of NumPy, in its docstring and in its test.
Not here: dot products of bytes (int8_dot.py), tile registers (amx.py).
Tests: tests/vol3/cpu/simd/test_intrinsics.py.
"""

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16

_I8, _I16, _I32 = (ir.IntType(bits) for bits in (8, 16, 32))
_HALF, _FLOAT = ir.HalfType(), ir.FloatType()
_F32, _I32X16, _B8 = ir.VectorType(_FLOAT, 16), ir.VectorType(_I32, 16), ir.VectorType(_I8, 64)

# -- the types ----------------------------------------------------------------------------------------------------


class Vector(types.Type):
    """A vector value; `shape` is its LLVM type."""

    def __init__(self, name: str, shape: ir.VectorType):
        self.shape = shape
        super().__init__(name=name)


F32x16, I32x16, B8x64 = Vector("F32x16", _F32), Vector("I32x16", _I32X16), Vector("B8x64", _B8)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, kind.shape)


# -- helpers of intrinsics ----------------------------------------------------------------------------------------


def pointer(context, builder, kind, array, index, shape):
    """The address of element `index` of a C-ordered array, as a pointer to `shape`."""
    struct = context.make_array(kind)(context, builder, array)
    place, extents = index[0], cgutils.unpack_tuple(builder, struct.shape)
    for i, extent in zip(index[1:], extents[1:], strict=True):
        place = builder.add(builder.mul(place, extent), i)
    return builder.bitcast(builder.gep(struct.data, [place]), shape.as_pointer())


def _argument_types(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The types of variable arguments, which Numba passes as they are or as one tuple."""
    return tuple(given[0]) if len(given) == 1 and isinstance(given[0], types.BaseTuple) else given


def _unpack(builder, value, kind):
    return cgutils.unpack_tuple(builder, value, len(kind))


def _loader(name, shape, result, convert):
    """An intrinsic `name(array, *index)` that loads `shape` at that element and converts it."""

    def typed(typing_context, array, *index):
        index = _argument_types(index)

        def generate(context, builder, sig, args):
            indices = [
                context.cast(builder, value, kind, types.intp)
                for value, kind in zip(_unpack(builder, args[1], sig.args[1]), sig.args[1], strict=True)
            ]
            place = pointer(context, builder, sig.args[0], args[0], indices, shape)
            return convert(context, builder, builder.load(place, align=1))

        return result(array, types.Tuple(index)), generate

    typed.__name__ = typed.__qualname__ = name
    return intrinsic(typed)


def call(builder, name, result, args):
    """Call the LLVM intrinsic `name`."""
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def broadcast(builder, scalar):
    """The scalar in all 16 lanes."""
    shape = ir.VectorType(scalar.type, LANES)
    first = builder.insert_element(ir.Constant(shape, ir.Undefined), scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, ir.Constant(shape, ir.Undefined), ir.Constant(_I32X16, [0] * LANES))


def _same(context, builder, value):
    return value


def _halves_to_floats(context, builder, value):
    return builder.fpext(value, _F32)


def _bfloats_to_floats(context, builder, value):  # a bfloat16 is the upper half of a float
    wide = builder.shl(builder.zext(value, _I32X16), ir.Constant(_I32X16, [16] * LANES))
    return builder.bitcast(wide, _F32)


def _broadcast_bytes(context, builder, value):
    return builder.bitcast(broadcast(builder, value), _B8)


# -- memory -------------------------------------------------------------------------------------------------------

load = _loader("load", _F32, F32x16, _same)  # 16 floats:  a[i : i+16]
load_i32 = _loader("load_i32", _I32X16, I32x16, _same)  # 16 integers:  a[i : i+16]
load_bytes = _loader("load_bytes", _B8, B8x64, _same)  # 64 bytes:  a[i : i+64]
load_half = _loader("load_half", ir.VectorType(_HALF, 16), F32x16, _halves_to_floats)  # 16 float16, as floats
load_bfloat = _loader("load_bfloat", ir.VectorType(_I16, 16), F32x16, _bfloats_to_floats)  # 16 bfloat16, as floats
load_int8 = _loader(  # 16 signed bytes, as floats
    "load_int8", ir.VectorType(_I8, 16), F32x16, lambda context, builder, value: builder.sitofp(value, _F32)
)
broadcast_quad = _loader("quad", _I32, B8x64, _broadcast_bytes)  # np.tile(a[i : i+4], 16)
load_one_half = _loader(  # one float16 (two bytes), as a float
    "load_one_half", _HALF, types.float32, lambda context, builder, value: builder.fpext(value, _FLOAT)
)


def _storer(name, narrow):
    """An intrinsic `name(array, *index, vector)` that stores the vector, converted by `narrow`."""

    def typed(typing_context, array, *rest):
        rest = _argument_types(rest)

        def generate(context, builder, sig, args):
            *index, value = _unpack(builder, args[1], sig.args[1])
            indices = [
                context.cast(builder, i, kind, types.intp)
                for i, kind in zip(index, list(sig.args[1])[:-1], strict=True)
            ]
            value = narrow(context, builder, value)
            builder.store(value, pointer(context, builder, sig.args[0], args[0], indices, value.type), align=1)
            return context.get_dummy_value()

        return types.void(array, types.Tuple(rest)), generate

    typed.__name__ = typed.__qualname__ = name
    return intrinsic(typed)


def _to_bfloat(context, builder, value):  # round to nearest, ties to even
    bits = builder.bitcast(value, _I32X16)
    odd = builder.and_(builder.lshr(bits, ir.Constant(_I32X16, [16] * 16)), ir.Constant(_I32X16, [1] * 16))
    rounded = builder.add(bits, builder.add(odd, ir.Constant(_I32X16, [0x7FFF] * 16)))
    return builder.trunc(builder.lshr(rounded, ir.Constant(_I32X16, [16] * 16)), ir.VectorType(_I16, 16))


store = _storer("store", _same)  # a[i : i+lanes] = v, of any of the three types
store_bfloat = _storer("store_bfloat", _to_bfloat)  # 16 floats, as bfloat16
store_int8 = _storer(  # 16 integers, as their low bytes
    "store_int8", lambda context, builder, value: builder.trunc(value, ir.VectorType(_I8, 16))
)


@intrinsic
def prefetch(typing_context, array, *index):
    """Prefetch the cache line of array[index] into L2; a hint."""
    index = _argument_types(index)

    def generate(context, builder, sig, args):
        indices = [
            context.cast(builder, value, kind, types.intp)
            for value, kind in zip(_unpack(builder, args[1], sig.args[1]), sig.args[1], strict=True)
        ]
        place = pointer(context, builder, sig.args[0], args[0], indices, _I8)
        kind = ir.FunctionType(ir.VoidType(), [place.type, _I32, _I32, _I32])
        fn = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(fn, [place, *(ir.Constant(_I32, value) for value in (0, 2, 1))])  # read, level 2, data
        return context.get_dummy_value()

    return types.void(array, types.Tuple(index)), generate


# -- arithmetic ---------------------------------------------------------------------------------------------------


@intrinsic
def splat(typing_context, scalar):
    """A number in all 16 lanes: a float gives F32x16, an integer I32x16."""
    number, result = (types.float32, F32x16) if isinstance(scalar, types.Float) else (types.int32, I32x16)

    def generate(context, builder, sig, args):
        return broadcast(builder, context.cast(builder, args[0], sig.args[0], number))

    return result(scalar), generate


def _operators(symbol, float_op, int_op):
    """a <symbol> b, lane by lane."""

    @infer_global(symbol)
    class _Typing(ConcreteTemplate):
        cases = [signature(kind, kind, kind) for kind, op in ((F32x16, float_op), (I32x16, int_op)) if op]  # noqa: RUF012

    for kind, op in ((F32x16, float_op), (I32x16, int_op)):
        if op:

            @lower_builtin(symbol, kind, kind)
            def _lower(context, builder, sig, args, op=op):
                return getattr(builder, op)(*args)


_operators(operator.add, "fadd", "add")
_operators(operator.sub, "fsub", "sub")
_operators(operator.mul, "fmul", "mul")
_operators(operator.truediv, "fdiv", None)


def vector_op(result, *arguments):
    """Decorates `generate(builder, *values)`: an intrinsic from values of the types `arguments` to `result`."""

    def decorate(generate_body):
        def typed(typing_context, *given):
            given = _argument_types(given)
            if len(given) != len(arguments):
                return None

            def generate(context, builder, sig, values):
                values = _unpack(builder, values[0], sig.args[0])
                values = [
                    value if isinstance(kind, Vector) else context.cast(builder, value, kind, wanted)
                    for value, kind, wanted in zip(values, given, arguments, strict=True)
                ]
                return generate_body(builder, *values)

            return result(types.Tuple(given)), generate

        typed.__name__ = typed.__qualname__ = generate_body.__name__
        typed.__doc__ = generate_body.__doc__
        return intrinsic(typed)

    return decorate


def _f32_constant(value):
    return ir.Constant(_F32, [value] * LANES)


def i32_constant(value):
    """The same integer in all 16 lanes, as a constant."""
    return ir.Constant(_I32X16, [value] * LANES)


def _fma(b, x, y, z):
    return call(b, "llvm.fma.v16f32", _F32, [x, y, z])


@vector_op(I32x16, I32x16, types.int64, types.int64)
def extract_bits(b, x, start, mask):
    """x >> start & mask, of unsigned lanes."""
    return b.and_(b.lshr(x, broadcast(b, b.trunc(start, _I32))), broadcast(b, b.trunc(mask, _I32)))


@vector_op(I32x16, F32x16, F32x16)
def pack_bfloat_pairs(b, low, high):
    """Two vectors as bfloat16, in the lower and in the upper halves of the lanes; ties round away from zero."""
    low, high = (b.add(b.bitcast(x, _I32X16), i32_constant(0x8000)) for x in (low, high))
    return b.or_(b.lshr(low, i32_constant(16)), b.and_(high, i32_constant(-65536)))


@vector_op(F32x16, F32x16, F32x16, F32x16)
def fma(b, x, y, z):
    """x * y + z, rounded once."""
    return _fma(b, x, y, z)


@vector_op(F32x16, F32x16, F32x16)
def maximum(b, x, y):
    """np.maximum(x, y), without NaN."""
    return b.select(b.fcmp_ordered(">", x, y), x, y)


@vector_op(F32x16, F32x16)
def absolute(b, x):
    """np.abs(x)."""
    return call(b, "llvm.fabs.v16f32", _F32, [x])


@vector_op(I32x16, F32x16)
def round_to_int32(b, x):
    """np.rint(x).astype(int32): to the nearest integer, ties to even."""
    return b.fptosi(call(b, "llvm.rint.v16f32", _F32, [x]), _I32X16)


@vector_op(F32x16, I32x16)
def to_float(b, x):
    """x.astype(float32)."""
    return b.sitofp(x, _F32)


@vector_op(F32x16, F32x16)
def exp(b, x):
    """e^x to about 1 unit in the last place, for x clipped to [-87, 88].

    x = n ln 2 + r with |r| <= ln 2 / 2, so e^x = 2^n e^r; e^r by its Taylor polynomial of degree 6 (Cody and Waite 1980
    split ln 2 in two, so that r is exact).
    """
    x = b.select(b.fcmp_ordered("<", x, _f32_constant(-87.0)), _f32_constant(-87.0), x)
    x = b.select(b.fcmp_ordered(">", x, _f32_constant(88.0)), _f32_constant(88.0), x)
    n = call(b, "llvm.rint.v16f32", _F32, [b.fmul(x, _f32_constant(1.4426950408889634))])
    r = _fma(b, n, _f32_constant(2.12194440e-4), _fma(b, n, _f32_constant(-0.693359375), x))
    y = _f32_constant(1 / 720)
    for factor in (1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        y = _fma(b, y, r, _f32_constant(factor))
    power = b.shl(b.add(b.fptosi(n, _I32X16), i32_constant(127)), i32_constant(23))  # 2^n: only an exponent
    return b.fmul(y, b.bitcast(power, _F32))


@vector_op(F32x16, F32x16)
def exp_approx(b, x):
    """e^x to within 2^-13 of itself, for x <= 0, clipped to -87: takes half the time of `exp`.

    x log2 e = n + r with |r| <= 1/2; adding 1.5 * 2^23 leaves n in the lowest bits. 2^r by the polynomial of degree 3
    with the smallest relative error, 7.5e-5.
    """
    x = b.select(b.fcmp_ordered(">", x, _f32_constant(-87.0)), x, _f32_constant(-87.0))
    shifted = _fma(b, x, _f32_constant(1.4426950408889634), _f32_constant(12582912.0))
    r = _fma(b, x, _f32_constant(1.4426950408889634), b.fneg(b.fsub(shifted, _f32_constant(12582912.0))))
    y = _f32_constant(0.0551716611)
    for factor in (0.242611125, 0.693260968, 0.999928057):
        y = _fma(b, y, r, _f32_constant(factor))
    power = b.shl(b.bitcast(shifted, _I32X16), i32_constant(23))
    return b.bitcast(b.add(b.bitcast(y, _I32X16), power), _F32)


@vector_op(F32x16, F32x16, types.int64, types.float32)
def select_first(b, x, count, other):
    """x in the first `count` lanes, `other` in the rest."""
    lanes = ir.Constant(_I32X16, list(range(LANES)))
    return b.select(b.icmp_signed("<", lanes, broadcast(b, b.trunc(count, _I32))), x, broadcast(b, other))


def _reduce_tree(b, x, combine):
    """Lanes 0..7 with 8..15, the result's 0..3 with 4..7, and so on: the same tree on every CPU."""
    width = LANES
    while width > 1:
        width //= 2
        shape = ir.Constant(x.type, ir.Undefined)
        halves = [
            b.shuffle_vector(x, shape, ir.Constant(ir.VectorType(_I32, width), list(range(start, start + width))))
            for start in (0, width)
        ]
        x = combine(*halves)
    return b.extract_element(x, ir.Constant(_I32, 0))


@vector_op(types.float32, F32x16)
def reduce_add(b, x):
    """x.sum(), added in a fixed tree."""
    return _reduce_tree(b, x, b.fadd)


@vector_op(types.float32, F32x16)
def reduce_max(b, x):
    """max(x)."""
    return _reduce_tree(b, x, lambda low, high: b.select(b.fcmp_ordered(">", low, high), low, high))


@vector_op(types.int32, I32x16)
def reduce_add_i32(b, x):
    """x.sum()."""
    return _reduce_tree(b, x, b.add)


@vector_op(types.float32, F32x16, types.int64)
def extract_lane(b, x, index):
    """x[index]."""
    return b.extract_element(x, index)
