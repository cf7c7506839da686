"""Shapes as distances: how far each pixel is from a shape's border, negative inside. Half a pixel of it is the edge.

Tests: tests/data/vqa/test_shapes.py.
"""

import math
from collections.abc import Callable

import numpy as np

from nano_llama.data.vqa.canvas import SIZE, Canvas

TURN = math.radians(15)  # at most so far is a shape rotated


def _circle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot(u, v) - 0.9


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) - 0.78


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Equilateral, with a corner up: below two slanted lines and above a level one, each 0.5 from the centre."""
    return np.maximum(math.sqrt(0.75) * np.abs(u) - 0.5 * v, v) - 0.5


def _diamond(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A rhombus, taller than wide, so that no rotation makes it a square."""
    return (1.6 * np.abs(u) + np.abs(v) - 1) / math.hypot(1.6, 1)


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Five points: one tenth of it, mirrored and rotated. Its border runs from a tip to a corner between two tips."""
    fifth = 2 * math.pi / 5
    angle = np.abs((np.arctan2(u, -v) + fifth / 2) % fifth - fifth / 2)  # from the nearest tip's direction
    radius = np.hypot(u, v)
    tip, corner = (1.0, 0.0), (0.45 * math.cos(fifth / 2), 0.45 * math.sin(fifth / 2))
    along = (corner[0] - tip[0], corner[1] - tip[1])
    length = math.hypot(*along)
    return ((radius * np.cos(angle) - tip[0]) * along[1] - radius * np.sin(angle) * along[0]) / length


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    longer, shorter = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
    return np.maximum(longer - 0.92, shorter - 0.3)


def _ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(u, v) - 0.7) - 0.22


def _moon(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A disc without another disc, which covers its right part."""
    return np.maximum(np.hypot(u, v) - 0.92, 0.75 - np.hypot(u - 0.42, v))


# By name: coordinates from the shape's centre, in units of its radius -> distance in the same units. v runs down.
DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": _circle, "square": _square, "triangle": _triangle, "diamond": _diamond,
    "star": _star, "cross": _cross, "ring": _ring, "moon": _moon,
}  # fmt: skip


def draw_shape(canvas: Canvas, name: str, x: float, y: float, radius: float, turn: float, colour: np.ndarray) -> None:
    """Paint a shape about (x, y). It lies within `radius` times 1.2 of there; only that part is computed."""
    reach = 1.2 * radius + 1
    left, right = max(0, math.floor(x - reach)), min(SIZE, math.ceil(x + reach))
    top, bottom = max(0, math.floor(y - reach)), min(SIZE, math.ceil(y + reach))
    dx = (np.arange(left, right, dtype=np.float32) + np.float32(0.5 - x)) / np.float32(radius)  # (w,)
    dy = ((np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - y)) / np.float32(radius))[:, None]  # (h,1)
    cos, sin = math.cos(turn), math.sin(turn)
    distance = DISTANCES[name](dx * cos + dy * sin, dy * cos - dx * sin) * radius  # (h,w), in pixels
    canvas.cover(np.clip(0.5 - distance, 0, 1), top, left, colour)
