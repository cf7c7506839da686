"""Instruction sets: which are supported, which is selected, and that the kernels pass their tests on each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nano_llama.vol3_engine.cpu.isa import ISAS, available_isas, selected_isa

HERE = Path(__file__).parent
KERNEL_TESTS = (
    "simd/test_intrinsics.py",
    "simd/test_accumulators.py",
    "kernels/test_activations.py",
    "kernels/test_linear.py",
)


def test_the_strongest_instruction_set_is_selected():
    here = available_isas()
    assert here[0] == "generic"
    assert set(here) <= set(ISAS)
    if "NANO_LLAMA_CPU" not in os.environ:
        assert selected_isa() == here[-1]


def run(isa, *command):
    return subprocess.run(
        [sys.executable, *command], env=os.environ | {"NANO_LLAMA_CPU": isa}, capture_output=True, text=True
    )


@pytest.mark.parametrize("isa", [isa for isa in available_isas() if isa != selected_isa()])
def test_kernels_pass_their_tests_on_weaker_instruction_sets(isa):
    tests = [str(HERE / name) for name in KERNEL_TESTS]
    done = run(isa, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-n", "0", *tests)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_unsupported_instruction_set_is_refused():
    done = run("riscv", "-c", "from nano_llama.vol3_engine.cpu.simd import int8_dot")
    assert done.returncode != 0
    assert "NANO_LLAMA_CPU='riscv' is not supported by this CPU" in done.stderr
