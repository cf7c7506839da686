"""How kernels are compiled: the decorator, and a word that keeps a function apart.

    @kernel                     like Numba's njit. A kernel makes no arrays, so no references are counted, which would
    def f(...):                 cost an atomic addition for each array handed on; it divides as NumPy does; and it is
                                compiled once for all integers it is called with, not again for each constant.
        noinline()            LLVM does not copy f into its callers: what is called from eight places is compiled once
        always_inline()         LLVM copies f into its callers, however long it is: its vectors stay in registers

Numba optimizes a function with all that it calls, and makes machine code of it, before it goes on to the function's
caller, where all of it is done again: a leaf six calls deep six times. What compiled code calls is therefore only
written down here (`_Part`) and linked; whoever is called from Python does the rest, once.
Not here: kernels, and their place on disk (compile_cache.py). Tests: tests/vol3/cpu/jit/test_jit.py.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from numba import njit, types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.extending import intrinsic


def kernel(function: Callable[..., Any]) -> Any:
    """As above."""
    from_python = njit(_nrt=False, error_model="numpy")(function)

    @cache
    def from_compiled():  # made when it is wanted: where kernels come from the disk it never is
        dispatcher = njit(_nrt=False, error_model="numpy", pipeline_class=_PartCompiler)(function)
        dispatcher.add_overload = lambda part: dispatcher.overloads.update({tuple(part.signature.args): part})
        return dispatcher

    def get_call_template(args, kws):
        args, kws = tuple(map(types.unliteral, args)), {name: types.unliteral(kind) for name, kind in kws.items()}
        return from_compiled().get_call_template(args, kws)

    from_python.get_call_template = get_call_template
    from_python.get_overload = lambda args: from_compiled().get_overload(args)
    return from_python


class _Part(JITCodeLibrary):
    """The code of a kernel for its callers: to be linked, not to be run."""

    def _optimize_final_module(self):
        pass

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._finalized = True


class _PartCompiler(Compiler):
    """Numba's compiler, up to a part."""

    def compile_extra(self, function):
        state = self.state
        state.library = _Part(state.targetctx.codegen(), function.__qualname__)
        state.flags.no_compile = state.flags.no_cpython_wrapper = state.flags.no_cfunc_wrapper = True
        result = super().compile_extra(function)._replace(entry_point=object())  # no address; callers know it by this
        state.targetctx.insert_user_function(result.entry_point, result.fndesc, [result.library])
        return result


@intrinsic
def noinline(typing_context):
    """The function in which this stands is never inlined; a call costs a nanosecond."""
    return _with_attribute("noinline")


@intrinsic
def always_inline(typing_context):
    """The function in which this stands is always inlined: a call would pass its vectors through memory."""
    return _with_attribute("alwaysinline")


def _with_attribute(name: str) -> Any:
    def generate(context, builder, sig, args):
        builder.function.attributes.add(name)
        return context.get_dummy_value()

    return types.void(), generate
