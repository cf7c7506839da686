"""Bits per byte, by hand."""

import math

import pytest

from nano_llama.core.loss import bits_per_byte


def test_bits_per_byte():
    """Four tokens of one bit each stand for two bytes."""
    assert bits_per_byte(math.log(2), tokens=4, num_bytes=2) == pytest.approx(2.0)
    assert bits_per_byte(3.0, tokens=0, num_bytes=0) == 0.0
