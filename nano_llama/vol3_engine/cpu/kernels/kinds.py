"""The kinds of weights that kernels multiply with, as numbers of formats/kinds.py, and what differs between them.

Tests: tests/vol3/cpu/kernels/test_pack.py, tests/vol3/cpu/kernels/test_linear.py.
"""

from typing import NamedTuple

from nano_llama.formats.kinds import Kind
from nano_llama.vol3_engine.cpu.jit.jit import kernel

KERNEL_KINDS = (Kind.F32, Kind.BF16, Kind.F16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1)
F32, BF16, F16, Q8_0, Q4_0, Q4_1 = (kind.number for kind in KERNEL_KINDS)
FLOAT_KINDS = (F32, BF16, F16)

GROUP = 32  # columns that share a scale
UNIT = 64  # columns of a unit of the quantized kinds: two groups


class Layout(NamedTuple):
    """A unit of 16 rows as pack.py lays it out."""

    columns: int
    data_bytes: int  # without scales and minima
    unit_bytes: int
    zero_point: int = 0  # the byte u that stands for d * 0


LAYOUTS = {
    F32: Layout(1, 64, 64),
    BF16: Layout(2, 64, 64),
    F16: Layout(2, 64, 64),
    Q8_0: Layout(UNIT, 1024, 1088, zero_point=128),
    Q4_0: Layout(UNIT, 512, 576, zero_point=8),
    Q4_1: Layout(UNIT, 512, 640),
}
_Q8_0, _Q4_0, _Q4_1 = LAYOUTS[Q8_0], LAYOUTS[Q4_0], LAYOUTS[Q4_1]


@kernel
def is_float(kind):
    return kind in (F32, BF16, F16)


@kernel
def is_4bit(kind):
    """Whether two weights share a byte."""
    return kind in (Q4_0, Q4_1)


@kernel
def has_minima(kind):
    return kind == Q4_1


@kernel
def zero_point(kind):
    if kind == Q8_0:
        return _Q8_0.zero_point
    return _Q4_0.zero_point if kind == Q4_0 else 0


@kernel
def data_bytes(kind):
    """Of a unit of a quantized kind, without scales and minima."""
    return _Q8_0.data_bytes if kind == Q8_0 else _Q4_0.data_bytes


@kernel
def unit_bytes(kind):
    """Of a unit of a quantized kind."""
    if kind == Q8_0:
        return _Q8_0.unit_bytes
    return _Q4_0.unit_bytes if kind == Q4_0 else _Q4_1.unit_bytes
