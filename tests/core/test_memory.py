"""The memory that a process says it took is what it took."""

import subprocess
import sys

import pytest

from nano_llama.core.memory import peak_resident_bytes

SCRIPT = """
from nano_llama.core.memory import peak_resident_bytes
before = peak_resident_bytes()
block = bytearray(b"x" * 300_000_000)
del block
print(before, peak_resident_bytes())
"""


@pytest.mark.skipif(not peak_resident_bytes(), reason="this system does not tell")
def test_it_grows_by_what_is_touched_and_does_not_forget():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert 0 < before < 200_000_000 < 300_000_000 <= after < 900_000_000
