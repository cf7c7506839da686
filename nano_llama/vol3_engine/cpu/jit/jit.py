"""How kernels are compiled: the decorator, and two marks that say whether a function is inlined.

    @kernel                 like Numba's njit. A kernel makes no arrays, so no references are counted, which would cost
    def f(...):             an atomic addition for each array passed on; it divides as NumPy does; and it is compiled
                            once for all integers it is called with, not again for each constant.
        noinline()          LLVM does not copy f into its callers: what is called from eight places is compiled once
        always_inline()     LLVM copies f into its callers, however long it is: its vectors stay in registers

Numba optimizes a function with all that it calls, and makes machine code of it, before it goes on to the function's
caller, where all of it is done again: a leaf six calls deep is compiled six times. So what compiled code calls is only
translated to LLVM here and linked (`_CalleeCode`); the function called from Python optimizes everything, once.
Not here: machine code on disk (compile_cache.py). Tests: tests/vol3/cpu/jit/test_jit.py.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from numba import njit, types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.extending import intrinsic


def kernel(function: Callable[..., Any]) -> Any:
    """See above."""
    from_python = njit(_nrt=False, error_model="numpy")(function)

    @cache
    def from_compiled():  # made on demand: never, if kernels come from the disk
        dispatcher = njit(_nrt=False, error_model="numpy", pipeline_class=_CalleeCompiler)(function)
        dispatcher.add_overload = lambda code: dispatcher.overloads.update({tuple(code.signature.args): code})
        return dispatcher

    def get_call_template(args, kws):
        args, kws = tuple(map(types.unliteral, args)), {name: types.unliteral(kind) for name, kind in kws.items()}
        return from_compiled().get_call_template(args, kws)

    from_python.get_call_template = get_call_template
    from_python.get_overload = lambda args: from_compiled().get_overload(args)
    return from_python


class _CalleeCode(JITCodeLibrary):
    """The code of a kernel for its callers: linked, never run by itself."""

    def _optimize_final_module(self):
        pass

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._finalized = True


class _CalleeCompiler(Compiler):
    """Numba's compiler, without optimization and machine code."""

    def compile_extra(self, function):
        state = self.state
        state.library = _CalleeCode(state.targetctx.codegen(), function.__qualname__)
        state.flags.no_compile = state.flags.no_cpython_wrapper = state.flags.no_cfunc_wrapper = True
        result = super().compile_extra(function)._replace(entry_point=object())  # no address: a key for its callers
        state.targetctx.insert_user_function(result.entry_point, result.fndesc, [result.library])
        return result


@intrinsic
def noinline(typing_context):
    """The function that calls this is never inlined; a call costs a nanosecond."""
    return _with_attribute("noinline")


@intrinsic
def always_inline(typing_context):
    """The function that calls this is always inlined: a call would pass its vectors through memory."""
    return _with_attribute("alwaysinline")


def _with_attribute(name: str) -> Any:
    def generate(context, builder, sig, args):
        builder.function.attributes.add(name)
        return context.get_dummy_value()

    return types.void(), generate
