"""bench/ is a folder of scripts: its modules are found as the scripts find them."""

import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
sys.path.append(str(BENCH))


@pytest.fixture
def bench() -> Path:
    return BENCH
