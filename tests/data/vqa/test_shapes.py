"""Shapes: smooth edges, the same area at any place, and each unlike the others."""

import itertools
import math

import numpy as np
import pytest

from nano_llama.data.vqa.canvas import Canvas
from nano_llama.data.vqa.questions import SHAPE_NAMES
from nano_llama.data.vqa.shapes import DISTANCES, TURN, draw_shape


def coverage(name, x=32.0, y=32.0, radius=12.0, turn=0.0):
    """(64,64), from 0 to 1"""
    canvas = Canvas(np.random.default_rng(0))
    canvas.pixels[:] = 0
    draw_shape(canvas, name, x, y, radius, turn, np.ones(3))
    return canvas.pixels[..., 0]


AREAS = {  # in units of the radius
    "circle": math.pi * 0.9**2,
    "square": 1.56**2,
    "triangle": 3 * math.sqrt(3) / 4,
    "diamond": 2 / 1.6,
    "star": 5 * 0.45 * math.sin(math.pi / 5),
    "cross": 1.84**2 - 4 * 0.62**2,
    "ring": math.pi * (0.92**2 - 0.48**2),
}


@pytest.mark.parametrize("name", AREAS)
def test_areas(name):
    for x, y, turn in ((32, 32, 0), (20.3, 41.7, 0.2)):
        assert coverage(name, x, y, turn=turn).sum() / 12**2 == pytest.approx(AREAS[name], rel=0.02)


def test_every_name_is_drawn():
    assert set(DISTANCES) == set(SHAPE_NAMES)


@pytest.mark.parametrize("name", SHAPE_NAMES)
def test_edges_are_smooth(name):
    covered = coverage(name)
    assert covered.min() == 0 and covered.max() == 1
    assert 10 < ((covered > 0.05) & (covered < 0.95)).sum() < 200


@pytest.mark.parametrize("name", SHAPE_NAMES)
def test_a_shape_stays_within_its_radius(name):
    y, x = np.mgrid[:64, :64]
    for turn in (-TURN, 0, TURN):
        reach = np.hypot(x - 31.5, y - 31.5)[coverage(name, turn=turn) > 0.5].max()
        assert reach <= 12 * 1.2, "more than is painted"


def test_no_two_are_alike():
    for a, b in itertools.combinations(SHAPE_NAMES, 2):
        for turn in (-TURN, 0, TURN):
            one, other = coverage(a), coverage(b, turn=turn)
            assert np.abs(one - other).sum() > 0.1 * max(one.sum(), other.sum()), (a, b)


def test_up_is_up():
    rows = coverage("triangle").sum(axis=1)
    assert rows[24] < rows[36]  # wider below
    star = coverage("star")
    assert star[21, 31:33].max() > 0.3 and star[43, 31:33].max() == 0  # a tip above, none below
    columns = coverage("moon").sum(axis=0)
    assert columns[:32].sum() > 1.5 * columns[32:].sum()
