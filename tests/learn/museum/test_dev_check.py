"""`museum dev check`: it sees each broken promise."""

import pytest

from nano_llama.learn.museum.dev_check import about_texts, check_room

from .conftest import DETECTOR


def test_a_room_that_keeps_its_promises(units_room):
    faults, seconds = check_room(units_room)
    assert faults == []
    assert 0 < seconds < 10


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("stars = 1", "stars = 4", "stars, title"),
        ('"w4"', '"w3"', "5 causes are needed"),
        ("if count < 1024:", "if count < 1025:", "plant: core/units.py holds 0 times"),
        ('new = "count /= 1000"', 'new = "count /= 1024"', "variant changes nothing"),
        ('new = "if count < 1000:"', 'new = "if count <= 1024:"', "other edits than the plant"),
        ('files = ["core/units.py", ', "files = [", "core/units.py is not in files"),
        ('"core/version.py"', '"core/__init__.py"', "an __init__.py cannot be planted"),
        ("variant = [", "variant = []\nunused = [", None),
    ],
)
def test_what_can_be_seen_in_its_texts(make_units_room, old, new, fault):
    if fault is None:
        with pytest.raises(TypeError):
            make_units_room((old, new))
        return
    assert any(fault in text for text in about_texts(make_units_room((old, new))))


@pytest.mark.parametrize(
    ("replacements", "fault"),
    [
        ([("1024, 1480", "1024"), (', "1.4 KiB"', "")], "passes on the variant"),
        ([("1.4 KiB", "1.5 KiB")], "fails on sound files"),
        ([("def test_", "assert size_text(1024) == '1.0 KiB'\n\n\ndef test_")], "breaks on the plant"),
    ],
)
def test_what_a_detector_does_not_see(make_units_room, replacements, fault):
    detector = DETECTOR
    for old, new in replacements:
        assert old in detector
        detector = detector.replace(old, new)
    faults, _ = check_room(make_units_room(detector=detector))
    assert any(fault in text for text in faults)
