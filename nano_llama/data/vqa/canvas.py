"""What is painted on: a background of little colour, layers that cover a part of it, and noise over all.

Tests: tests/data/vqa/test_canvas.py.
"""

import numpy as np

SIZE = 64  # pixels along each side
DARK, LIGHT = (15, 80), (170, 235)  # ranges of a background's brightness


class Canvas:
    """An image in float32, RGB from 0 to 255. pixels: (64,64,3); x runs to the right, y down, in pixels."""

    def __init__(self, rng: np.random.Generator):
        """A background, light or dark, whose brightness changes along some direction."""
        self.is_light = bool(rng.random() < 0.5)
        base = rng.uniform(*(LIGHT if self.is_light else DARK)) + rng.uniform(-10, 10, 3)  # (3,)
        slope = rng.uniform(-14, 14, 2)
        ramp = np.linspace(-1, 1, SIZE, dtype=np.float32)
        shade = ramp[:, None] * slope[0] + ramp * slope[1]  # (64,64)
        self.pixels = (shade[..., None] + base).astype(np.float32)  # (64,64,3)

    def cover(self, coverage: np.ndarray, top: int, left: int, colour: tuple[float, ...] | np.ndarray) -> None:
        """Paint: `coverage` (h,w), from 0 to 1, says how much of each pixel is covered. It must lie on the canvas."""
        h, w = coverage.shape
        part = self.pixels[top : top + h, left : left + w]  # a view (h,w,3)
        assert part.shape[:2] == (h, w), "painted over the edge"
        part += coverage[..., None] * (np.asarray(colour, np.float32) - part)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, colour: tuple[float, ...] | np.ndarray) -> None:
        """Between x0 and x1, y0 and y1; a pixel at its edge is covered in part."""
        left, top = int(x0), int(y0)
        across, down = (
            np.clip(np.minimum(edges + 1, high) - np.maximum(edges, low), 0, 1)
            for edges, low, high in ((np.arange(left, x1), x0, x1), (np.arange(top, y1), y0, y1))
        )  # (w,), (h,): how much of each column and row lies within
        self.cover((down[:, None] * across).astype(np.float32), top, left, colour)

    def finish(self, rng: np.random.Generator) -> np.ndarray:
        """The image as bytes (64,64,3), with noise of some strength."""
        noise = rng.integers(-128, 128, self.pixels.shape, np.int8) * np.float32(rng.uniform(0, 14) / 128)
        return np.clip(self.pixels + noise, 0, 255).astype(np.uint8)


def jittered(colour: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A colour near this one: no two reds are the same.    -> (3,)"""
    return np.asarray(colour) + rng.uniform(-12, 12, 3)
