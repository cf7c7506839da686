"""Which instruction set the kernels use: decided once, by what this CPU has.

    amx       Intel's tile registers: products of int8 and bfloat16 matrices; AVX-512 VNNI for small batches
    avx512    AVX-512 with VNNI: 64 products of bytes per instruction
    avxvnni   the same in halves of 32 bytes, on CPUs without AVX-512
    avx2      products of bytes by multiply-add of 16-bit pairs
    generic   whatever LLVM makes of plain vector arithmetic: ARM and all others

All compute the same bits, except for prefill rows on AMX. `NANO_LLAMA_CPU` selects a weaker one, for tests and
comparisons.
Tests: tests/vol3/cpu/test_isa.py.
"""

import ctypes
import platform
import sys
from functools import cache

from llvmlite import binding

from nano_llama.core import env
from nano_llama.core.errors import UserError

ISAS = ("generic", "avx2", "avxvnni", "avx512", "amx")

_FEATURES = {
    "generic": (),
    "avx2": ("avx2", "fma", "f16c"),
    "avxvnni": ("avx2", "fma", "f16c", "avxvnni"),
    "avx512": ("avx512f", "avx512bw", "avx512vl", "avx512vnni"),
    "amx": ("avx512f", "avx512bw", "avx512vl", "avx512vnni", "amx-tile", "amx-int8", "amx-bf16"),
}

ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA = 158, 0x1023, 18  # linux/arch/x86: sys_arch_prctl, ARCH_REQ_XCOMP_PERM


def available_isas() -> list[str]:
    """What this CPU supports, weakest first."""
    features = binding.get_host_cpu_features() if platform.machine().lower() in ("x86_64", "amd64") else {}
    found = [isa for isa in ISAS if all(features.get(name) for name in _FEATURES[isa])]
    return [isa for isa in found if isa != "amx" or _request_amx()]


@cache
def selected_isa() -> str:
    """The strongest, or the one that NANO_LLAMA_CPU names. Raises UserError if this CPU does not support it."""
    here, wanted = available_isas(), env.cpu_isa()
    if wanted is None:
        return here[-1]
    if wanted not in here:
        raise UserError(
            f"NANO_LLAMA_CPU={wanted!r} is not supported by this CPU.", hint=f"Supported: {', '.join(here)}."
        )
    return wanted


def has_32_vector_registers() -> bool:
    """Whether there are 32 registers of 512 bits: they hold 16 accumulators of 16 lanes; all others hold 4."""
    return selected_isa() in ("avx512", "amx")


def has_amx() -> bool:
    """Whether the kernels use AMX tiles."""
    return selected_isa() == "amx"


@cache
def _request_amx() -> bool:
    """Ask Linux for the tile registers: they make the state of every thread 8 KiB larger, so they are opt-in."""
    if sys.platform != "linux":
        return False
    return ctypes.CDLL(None, use_errno=True).syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA) == 0
