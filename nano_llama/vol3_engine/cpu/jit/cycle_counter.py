"""Profiling inside compiled code: the CPU's cycle counter, which costs a few nanoseconds to read.

Not here: ticks as seconds (cpu/runner.py). Tests: tests/vol3/cpu/test_runner.py.
"""

import platform

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nano_llama.vol3_engine.cpu.jit.jit import kernel
from nano_llama.vol3_engine.cpu.simd.intrinsics import call

_I64 = ir.IntType(64)
_MACHINE = platform.machine().lower()


@intrinsic
def read_cycle_counter(typing_context):
    """Ticks of a steady counter; 0 on CPUs whose counter we do not know."""

    def generate(context, builder, sig, args):
        if _MACHINE in ("x86_64", "amd64"):
            return call(builder, "llvm.readcyclecounter", _I64, [])
        if _MACHINE in ("aarch64", "arm64"):
            return builder.asm(ir.FunctionType(_I64, []), "mrs $0, cntvct_el0", "=r", [], True)
        return ir.Constant(_I64, 0)

    return types.int64(), generate


@kernel
def lap(times, thread, phase, since):
    """Add the ticks since `since` to times[thread, phase] -> now. Does nothing if `times` is empty."""
    if len(times) == 0:
        return since
    now = read_cycle_counter()
    if since != 0:
        times[thread, phase] += now - since
    return now
