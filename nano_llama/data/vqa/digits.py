"""Scenes of one handwritten digit: scikit-learn's 1,797, of 8 x 8 pixels, enlarged.

held_out_samples: every fifth of them never occurs in training. Tests: tests/data/vqa/test_tasks.py.
Source of the digits: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits" (UCI), its test set.
"""

import numpy as np

from nano_llama.core.errors import import_extra
from nano_llama.data.vqa.canvas import SIZE, Canvas
from nano_llama.data.vqa.questions import NUMBERS, Scene, Task, ask

HELD_OUT = 5  # one sample in so many


def digit_task() -> Task:
    """Reads the digits. Raises EnvironmentFault where scikit-learn is missing."""
    data = import_extra("sklearn.datasets", "vision", "The task 'digit' of shapes-vqa").load_digits()
    # with a border of paper, as strokes end where the samples do
    images = np.pad(data.images / 16, ((0, 0), (1, 1), (1, 1))).astype(np.float32)  # (1797,10,10), from 0 to 1
    labels = data.target  # (1797,)

    def draw(rng: np.random.Generator) -> Scene:
        sample, size = int(rng.integers(len(images))), int(rng.integers(34, SIZE + 1))
        top, left = (int(place) for place in rng.integers(0, SIZE - size + 1, 2))

        def paint(canvas: Canvas, rng: np.random.Generator) -> None:
            weights = enlarging(10, size)  # (size,10)
            shade = rng.uniform(0, 60, 3) if canvas.is_light else rng.uniform(195, 255, 3)
            canvas.cover(weights @ images[sample] @ weights.T, top, left, shade)

        group = "seen" if sample % HELD_OUT else "held_out_samples"
        return Scene(group, (ask("digit", NUMBERS[labels[sample]]),), paint)

    return Task(draw, ("held_out_samples",))


def enlarging(small: int, large: int) -> np.ndarray:
    """Linear interpolation as a matrix (large, small), whose rows sum to 1; beyond the outer pixels it is constant."""
    places = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, small - 1)  # in pixels of the small image
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(small))).astype(np.float32)
