"""Instruction sets: which are supported, which is selected, and that the kernels pass their tests on each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nano_llama.core import machine
from nano_llama.vol3_engine.cpu.isa import available_isas, selected_isa

HERE = Path(__file__).parent
KERNEL_TESTS = (
    "simd/test_intrinsics.py",
    "simd/test_accumulators.py",
    "kernels/test_activations.py",
    "kernels/test_linear.py",
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="compares with /proc/cpuinfo")
def test_available_isas_are_those_of_cpuinfo():
    """LLVM asks the processor, core/machine.py the system; the kernel must also have granted the tile registers."""
    found, here = set(machine.instructions()), available_isas()
    assert here[0] == "generic"
    assert ("avx2" in here) == ({"AVX2", "FMA", "F16C"} <= found)
    assert ("avx512" in here) == ({"AVX-512", "AVX-512 VNNI"} <= found)
    assert ("avxvnni" in here) == ("AVX-VNNI" in found)
    assert "AMX INT8" in found or "amx" not in here


@pytest.mark.skipif("NANO_LLAMA_CPU" in os.environ, reason="an instruction set was chosen")
def test_the_strongest_isa_is_selected():
    strength = {"generic": 0, "avx2": 1, "avxvnni": 2, "avx512": 3, "amx": 4}
    assert selected_isa() == max(available_isas(), key=strength.__getitem__)


def run(isa, *command):
    return subprocess.run(
        [sys.executable, *command], env=os.environ | {"NANO_LLAMA_CPU": isa}, capture_output=True, text=True
    )


@pytest.mark.parametrize("isa", [isa for isa in available_isas() if isa != selected_isa()])
def test_kernels_pass_their_tests_on_weaker_instruction_sets(isa, request):
    tests = [str(HERE / name) for name in KERNEL_TESTS]
    options = () if hasattr(request.config, "cache") else ("-p", "no:cacheprovider")  # where compiled kernels are kept
    done = run(isa, "-m", "pytest", "-q", "-x", "-n", "0", *options, *tests)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_unsupported_instruction_set_is_refused():
    done = run("riscv", "-c", "from nano_llama.vol3_engine.cpu.simd import int8_dot")
    assert done.returncode != 0
    assert "NANO_LLAMA_CPU='riscv' is not supported by this CPU" in done.stderr
