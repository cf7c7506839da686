"""A room of the tests' own, in a light module: sizes in words go wrong at 1024 bytes."""

import pytest

from nano_llama.learn.museum.catalogue import make_room

TOML = """
title = "Sizes"
stars = 1
symptom = "One KiB is 1,024 bytes here."
files = ["core/units.py", "core/version.py"]
causes = ["The limit belongs to the next unit.", "w1", "w2", "w3", "w4"]
history = ["https://example.org/1"]
plant = [{file = "core/units.py", old = "if count < 1024:", new = "if count <= 1024:"}]
variant = [{file = "core/units.py", old = "count /= 1024", new = "count /= 1000"}]
wrong_fix = [{file = "core/units.py", old = "if count < 1024:", new = "if count < 1000:"}]
"""
DETECTOR = """
from nano_llama.core.units import size_text


def test_sizes():
    shown = [size_text(count) for count in (1023, 1024, 1480)]
    assert shown == ["1,023 bytes", "1.0 KiB", "1.4 KiB"], f"sizes are {shown}"
"""


@pytest.fixture
def make_units_room():
    """A factory: the room's texts with parts replaced."""

    def make(*changes, detector=DETECTOR):
        toml = TOML
        for old, new in changes:
            assert old in toml
            toml = toml.replace(old, new)
        return make_room(77, {"room.toml": toml, "detector.py": detector, "page.md": "It was <=."})

    return make


@pytest.fixture
def units_room(make_units_room):
    return make_units_room()
