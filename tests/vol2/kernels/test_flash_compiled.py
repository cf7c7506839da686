"""Flash attention's kernels, compiled for an H100 without one: they compile, and fit where they are to run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HELPERS = Path(__file__).parents[2] / "helpers"
SHARED_MEMORY = 227 * 2**10  # bytes that a program can have on compute capability 9.0


@pytest.fixture(scope="module")
def kernels(tmp_path_factory) -> list[dict]:
    """Compiled in a process of their own, in which nothing is interpreted, and each time anew."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, HELPERS / "compile_flash_attention.py"], capture_output=True, text=True,
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.triton
def test_they_fit_an_h100(kernels):
    assert len(kernels) == 9
    for kernel in kernels:
        assert kernel["shared"] <= SHARED_MEMORY, kernel
        # products by Hopper's tensor cores, several at a time: the assembler may decide to wait for each
        assert 0 < kernel["groups"] < kernel["products"], kernel
        assert kernel["stack"] <= 256, kernel  # bytes of a thread: a few values, no tile
