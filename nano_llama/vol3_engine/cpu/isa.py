"""Which instructions the kernels may use: decided once, by what this processor has.

    amx       Intel's tile registers: int8 matrices of 16 x 16, for prompts and large batches; AVX-512 VNNI for the rest
    avx512    AVX-512 with VNNI: 64 products of bytes an instruction
    avxvnni   the same in halves of 32 bytes, on processors without AVX-512
    avx2      products of bytes by multiply-add of 16-bit pairs
    generic   whatever LLVM makes of plain vector arithmetic: ARM and all else

A stronger tier computes the same bits as a weaker one. `NANO_LLAMA_CPU` names a weaker one, for tests and comparisons.
Not here: the instructions (simd/int8_dot.py, simd/amx.py). Tests: tests/vol3/cpu/test_isa.py.
"""

import ctypes
import platform
import sys
from functools import cache

from llvmlite import binding

from nano_llama.core import env
from nano_llama.core.errors import UserError

ISAS = ("generic", "avx2", "avxvnni", "avx512", "amx")

_NEEDS = {
    "generic": (),
    "avx2": ("avx2", "fma", "f16c"),
    "avxvnni": ("avx2", "fma", "f16c", "avxvnni"),
    "avx512": ("avx512f", "avx512bw", "avx512vl", "avx512vnni"),
    "amx": ("avx512f", "avx512bw", "avx512vl", "avx512vnni", "amx-tile", "amx-int8", "amx-bf16"),
}

ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA = 158, 0x1023, 18  # linux/arch/x86: sys_arch_prctl, ARCH_REQ_XCOMP_PERM


def available_isas() -> list[str]:
    """The tiers that this processor can run, weakest first."""
    features = binding.get_host_cpu_features() if platform.machine().lower() in ("x86_64", "amd64") else {}
    found = [tier for tier in ISAS if all(features.get(name) for name in _NEEDS[tier])]
    return [tier for tier in found if tier != "amx" or _may_use_tiles()]


@cache
def selected_isa() -> str:
    """The strongest tier there is, or the one that NANO_LLAMA_CPU names. Raises UserError where it cannot be had."""
    here, wanted = available_isas(), env.cpu_tier()
    if wanted is None:
        return here[-1]
    if wanted not in here:
        raise UserError(
            f"NANO_LLAMA_CPU={wanted!r} is not to be had on this processor.", hint=f"Here: {', '.join(here)}."
        )
    return wanted


def has_32_vector_registers() -> bool:
    """Whether registers hold 16 running sums of 16 lanes: 32 of 512 bits do; 16 of 256, or 32 of 128 bits, hold 4."""
    return selected_isa() in ("avx512", "amx")


def has_amx() -> bool:
    """Whether kernels may use tiles."""
    return selected_isa() == "amx"


@cache
def _may_use_tiles() -> bool:
    """Linux lends the tile registers to a process that asks for them (they make every thread's state 8 KiB larger)."""
    if sys.platform != "linux":
        return False
    return ctypes.CDLL(None, use_errno=True).syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA) == 0
