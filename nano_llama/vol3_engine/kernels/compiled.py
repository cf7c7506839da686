"""How kernels are compiled: the decorator, and a word that keeps a function apart.

    @kernel                     like Numba's njit. A kernel makes no arrays, so no references are counted, which would
    def f(...):                 cost an atomic addition for each array handed on; it divides as NumPy does; and it is
                                compiled once for all integers it is called with, not again for each constant.
        keep_apart()            LLVM does not copy f into its callers: what is called from eight places is compiled once
        keep_together()         LLVM copies f into its callers, however long it is: its vectors stay in registers

Not here: kernels, and their place on disk (cache.py). Tests: tests/vol3/test_runner_cpu.py runs them all.
"""

from collections.abc import Callable
from typing import Any

from numba import njit, types
from numba.extending import intrinsic


def kernel(function: Callable[..., Any]) -> Any:
    """As above."""
    dispatcher = njit(_nrt=False, error_model="numpy")(function)
    template = dispatcher.get_call_template

    def get_call_template(args, kws):
        return template(tuple(map(types.unliteral, args)), {name: types.unliteral(kind) for name, kind in kws.items()})

    dispatcher.get_call_template = get_call_template
    return dispatcher


@intrinsic
def keep_apart(typing_context):
    """The function in which this stands is never inlined; a call costs a nanosecond."""
    return _with_attribute("noinline")


@intrinsic
def keep_together(typing_context):
    """The function in which this stands is always inlined: a call would pass its vectors through memory."""
    return _with_attribute("alwaysinline")


def _with_attribute(name: str) -> Any:
    def generate(context, builder, sig, args):
        builder.function.attributes.add(name)
        return context.get_dummy_value()

    return types.void(), generate
