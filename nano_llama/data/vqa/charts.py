"""Scenes of bar charts: three to five bars of different colours and heights.

held_out_bars: some colours are never tallest at some places in training. Tests: tests/data/vqa/test_tasks.py.
"""

import numpy as np

from nano_llama.data.vqa.canvas import Canvas, jittered
from nano_llama.data.vqa.questions import COLOUR_NAMES, COLOURS, NUMBERS, Scene, Task, ask

FLOOR, LEFT, RIGHT = 58.0, 6.0, 60.0  # where the axes and the last bar end
STEP = 6  # pixels by which heights differ at least


def is_held_out_bar(colour: int, place: int) -> bool:
    """colour: the tallest bar's; place: its number from the left, from 0."""
    return colour % 4 == place


def draw_chart(rng: np.random.Generator) -> Scene:
    count = int(rng.integers(3, 6))
    colours = rng.choice(len(COLOURS), count, replace=False)  # (count,)
    heights = STEP * (1 + rng.choice(8, count, replace=False)) + rng.uniform(0, 2, count)  # (count,), at most 50
    tallest, shortest = int(np.argmax(heights)), int(np.argmin(heights))
    width, filled = (RIGHT - LEFT) / count, rng.uniform(0.5, 0.85)

    def paint(canvas: Canvas, rng: np.random.Generator) -> None:
        for place, (colour, height) in enumerate(zip(colours, heights, strict=True)):
            x = LEFT + 1 + width * (place + (1 - filled) / 2)
            shade = jittered(COLOURS[COLOUR_NAMES[colour]], rng)
            canvas.rectangle(x, FLOOR - height, x + width * filled, FLOOR, shade)
        ink = (40.0,) * 3 if canvas.is_light else (215.0,) * 3
        canvas.rectangle(LEFT - 1, FLOOR, RIGHT + 2, FLOOR + 1, ink)
        canvas.rectangle(LEFT - 1, 4, LEFT, FLOOR, ink)

    questions = (
        ask("bars", NUMBERS[count]),
        ask("tallest", COLOUR_NAMES[colours[tallest]]),
        ask("shortest", COLOUR_NAMES[colours[shortest]]),
    )
    return Scene("held_out_bars" if is_held_out_bar(int(colours[tallest]), tallest) else "seen", questions, paint)


CHART_TASK = Task(draw_chart, ("seen", "held_out_bars"))
