"""Scenes of shapes: one of them, two in relation, up to six to be counted.

Some combinations never occur in training, although their parts all do. A model that has learned parts and not
pictures answers about them as well:

    held_out_pairs        a colour with a shape, one of each colour's eight, in every task here
    held_out_places       a shape in one of the four quarters of a picture
    held_out_relations    two shapes, in any relation
    held_out_counts       so many of a shape

Tests: tests/data/vqa/test_shape_tasks.py.
"""

from collections.abc import Callable, Sequence

import numpy as np

from nano_llama.data.vqa.canvas import SIZE, Canvas, jittered
from nano_llama.data.vqa.questions import COLOUR_NAMES, COLOURS, NUMBERS, SHAPE_NAMES, Scene, Task, ask
from nano_llama.data.vqa.shapes import TURN, draw_shape

MIDDLE = 5  # pixels on each side of the middle in which no single shape's centre lies: it is clear which side it is on


def is_held_out_pair(colour: int, shape: int) -> bool:
    """One shape for each colour, one colour for each shape."""
    return shape == (3 * colour + 1) % len(SHAPE_NAMES)


def is_held_out_place(shape: int, right: bool, bottom: bool) -> bool:
    return shape % 4 == 2 * right + bottom


def is_held_out_relation(first: int, second: int) -> bool:
    """In either order: else the question alone, which names both shapes, would tell the answer in training."""
    return (second - first) % len(SHAPE_NAMES) in (3, 5)


def is_held_out_count(shape: int, count: int) -> bool:
    return count == shape % 6 + 1


def draw_single(rng: np.random.Generator) -> Scene:
    """A shape of any size, anywhere but across the middle."""
    colour, shape = (int(i) for i in rng.integers(8, size=2))
    radius = rng.uniform(8, 18)
    x, y = (_off_middle(rng, radius + 1) for _ in "xy")
    right, bottom = x > SIZE / 2, y > SIZE / 2
    held_out_pair, held_out_place = is_held_out_pair(colour, shape), is_held_out_place(shape, right, bottom)
    group = "held_out_pairs" if held_out_pair else "held_out_places" if held_out_place else "seen"
    questions = (
        ask("colour", COLOUR_NAMES[colour]),
        ask("shape", SHAPE_NAMES[shape]),
        ask("side", "right" if right else "left"),
        ask("height", "bottom" if bottom else "top"),
    )
    return Scene(group, questions, _painter([(shape, colour, x, y, radius)]))


def draw_relation(rng: np.random.Generator) -> Scene:
    """Two shapes that differ in shape and colour, one left of the other or one above the other."""
    first, second = (int(i) for i in rng.choice(8, 2, replace=False))
    colours = _two_colours(rng, first, second)
    radii = rng.uniform(7, 12, 2)
    level = rng.random() < 0.5
    along = [rng.uniform(radii[0] + 1, 31 - radii[0]), rng.uniform(33 + radii[1], 62 - radii[1])]
    across = [rng.uniform(radius + 1, SIZE - 1 - radius) for radius in radii]
    xs, ys = (along, across) if level else (across, along)
    shown = list(zip((first, second), colours, xs, ys, radii, strict=True))
    asked, other = (first, second) if rng.random() < 0.5 else (second, first)
    names = {"shape": SHAPE_NAMES[asked], "other": SHAPE_NAMES[other]}
    place = ("left" if level else "above") if asked == first else ("right" if level else "below")
    questions = (
        ask("left_right" if level else "above_below", place, **names),
        *(ask("colour_of", COLOUR_NAMES[c], shape=SHAPE_NAMES[s]) for s, c, *_ in shown),
    )
    group = "held_out_relations" if is_held_out_relation(first, second) else "seen"
    return Scene(group, questions, _painter(shown))


def draw_count(rng: np.random.Generator) -> Scene:
    """One to six small shapes of a kind, in at most two colours, none touching another."""
    shape, count = int(rng.integers(8)), int(rng.integers(1, 7))
    colours = _two_colours(rng, shape, shape)
    of_first = int(rng.integers(count + 1))
    cells = rng.choice(9, count, replace=False)  # of 3 x 3, each 21 pixels wide
    shown = []
    for number, cell in enumerate(cells):
        radius = rng.uniform(5, 8)
        x, y = (11 + 21 * place + rng.uniform(-1.5, 1.5) for place in (cell % 3, cell // 3))
        shown.append((shape, colours[number >= of_first], x, y, radius))
    asked = int(rng.integers(2))
    number = (of_first, count - of_first)[asked]
    questions = (
        ask("count", NUMBERS[count]),
        ask("count_of", NUMBERS[number], colour=COLOUR_NAMES[colours[asked]]),
    )
    group = "held_out_counts" if is_held_out_count(shape, count) else "seen"
    return Scene(group, questions, _painter(shown))


SHAPE_TASKS = {
    "shape": Task(draw_single, ("seen", "held_out_pairs", "held_out_places")),
    "relation": Task(draw_relation, ("seen", "held_out_relations")),
    "count": Task(draw_count, ("seen", "held_out_counts")),
}


def _off_middle(rng: np.random.Generator, margin: float) -> float:
    """A coordinate at least `margin` from both edges and MIDDLE from the middle."""
    half = SIZE / 2
    distance = rng.uniform(MIDDLE, half - margin)
    return half - distance if rng.random() < 0.5 else half + distance


def _two_colours(rng: np.random.Generator, first: int, second: int) -> tuple[int, int]:
    """Two different ones, neither of which is held out with its shape."""
    while True:
        a, b = (int(i) for i in rng.choice(8, 2, replace=False))
        if not is_held_out_pair(a, first) and not is_held_out_pair(b, second):
            return a, b


def _painter(
    shown: Sequence[tuple[int, int, float, float, float]],
) -> Callable[[Canvas, np.random.Generator], None]:
    """shown: (shape, colour, x, y, radius) of each."""

    def paint(canvas: Canvas, rng: np.random.Generator) -> None:
        for shape, colour, x, y, radius in shown:
            turn, shade = rng.uniform(-TURN, TURN), jittered(COLOURS[COLOUR_NAMES[colour]], rng)
            draw_shape(canvas, SHAPE_NAMES[shape], x, y, radius, turn, shade)

    return paint
