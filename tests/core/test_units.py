"""Sizes, counts and times in words."""

import pytest

from nano_llama.core.units import clock_text, count_text, plural, rough_time_text, shortened_text, size_text, time_text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1,023 bytes"), (1536, "1.5 KiB"), (2**30, "1.0 GiB"), (3 * 2**40, "3.0 TiB")],
)
def test_sizes(count, text):
    assert size_text(count) == text


def test_counts():
    assert [count_text(n) for n in (5, 6500, 134_515_008, 8e9)] == ["5", "6.5k", "134.5M", "8.0B"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2 s"), (59, "59.0 s"), (75.2, "1 min 15 s"), (3599.9, "1 h 0 min"), (7260, "2 h 1 min")],
)
def test_measured_times(seconds, text):
    assert time_text(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(30, "30 seconds"), (600, "10 minutes"), (7200, "2 hours"), (400_000, "5 days")]
)
def test_estimated_times(seconds, text):
    assert rough_time_text(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (75.2, "1:15"), (4000, "1:06:40")])
def test_clocks(seconds, text):
    assert clock_text(seconds) == text


def test_a_long_text_loses_its_middle():
    assert shortened_text("ab" * 5, 10) == "ab" * 5
    assert shortened_text("abcdefghijklmno", 6) == "abc [... 9 characters ...] mno"
    assert shortened_text("abcdefghijklmno", 6, "\n").splitlines() == ["abc", "[... 9 characters ...]", "mno"]


@pytest.mark.parametrize(("count", "text"), [(0, "0 steps"), (1, "1 step"), (2, "2 steps"), (1200, "1,200 steps")])
def test_counted(count, text):
    assert plural(count, "step") == text
