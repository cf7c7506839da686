"""The tiers: what the processor has, what may be asked for, and that the kernels pass their tests in each."""

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


def test_a_processor_can_always_do_plain_arithmetic_and_takes_its_best():
    here = available_isas()
    assert here[0] == "generic"
    assert set(here) <= set(ISAS)
    if "NANO_LLAMA_CPU" not in os.environ:
        assert selected_isa() == here[-1]


def run(tier, *command):
    return subprocess.run(
        [sys.executable, *command], env=os.environ | {"NANO_LLAMA_CPU": tier}, capture_output=True, text=True
    )


@pytest.mark.parametrize("tier", [tier for tier in available_isas() if tier != selected_isa()])
def test_a_weaker_tier_passes_the_tests_of_the_kernels(tier):
    tests = [str(HERE / name) for name in KERNEL_TESTS]
    done = run(tier, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-n", "0", *tests)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_tier_that_is_not_there_is_refused_by_name():
    done = run("riscv", "-c", "from nano_llama.vol3_engine.cpu.simd import int8_dot")
    assert done.returncode != 0
    assert "NANO_LLAMA_CPU='riscv' is not to be had" in done.stderr
