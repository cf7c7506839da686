"""Every question that is asked, word for word, with the answers that it can have; and a scene, before it is painted.

Tests: tests/data/vqa/test_questions.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nano_llama.data.vqa.canvas import Canvas

COLOURS = {
    "red": (214, 38, 38), "orange": (244, 140, 24), "yellow": (240, 218, 40), "green": (44, 165, 60),
    "cyan": (50, 200, 212), "blue": (44, 82, 220), "purple": (140, 52, 190), "pink": (246, 134, 190),
}  # fmt: skip
COLOUR_NAMES = tuple(COLOURS)
SHAPE_NAMES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring", "moon")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Kind(NamedTuple):
    """text: with {blanks}; choices: all answers, () where they are words that cannot be listed."""

    text: str
    choices: tuple[str, ...]


# By kind, under which accuracies are reported. Guessing blindly is right once in len(choices).
QUESTIONS = {
    "colour": Kind("What colour is the shape?", COLOUR_NAMES),
    "shape": Kind("What shape is it?", SHAPE_NAMES),
    "side": Kind("Which side is the shape on?", ("left", "right")),
    "height": Kind("Is the shape at the top or at the bottom?", ("top", "bottom")),
    "left_right": Kind("Is the {shape} left or right of the {other}?", ("left", "right")),
    "above_below": Kind("Is the {shape} above or below the {other}?", ("above", "below")),
    "colour_of": Kind("What colour is the {shape}?", COLOUR_NAMES),
    "count": Kind("How many shapes are there?", NUMBERS[1:7]),
    "count_of": Kind("How many {colour} shapes are there?", NUMBERS[:7]),
    "digit": Kind("Which digit is it?", NUMBERS),
    "word": Kind("What word is written?", ()),
    "spelling": Kind("How is the word spelled?", ()),
    "lines": Kind("How are the words spelled?", ()),
    "bars": Kind("How many bars are there?", NUMBERS[3:6]),
    "tallest": Kind("What colour is the tallest bar?", COLOUR_NAMES),
    "shortest": Kind("What colour is the shortest bar?", COLOUR_NAMES),
}


@dataclass(frozen=True)
class Question:
    kind: str  # a key of QUESTIONS
    text: str
    answer: str


def ask(kind: str, answer: str, **blanks: str) -> Question:
    """A question of this kind, its blanks filled in."""
    text, choices = QUESTIONS[kind]
    assert answer in choices or not choices, f"{answer!r} does not answer {text!r}"
    return Question(kind, text.format(**blanks), answer)


@dataclass(frozen=True)
class Scene:
    """What a picture shows. group: "seen", or the name of the held-out combinations that it belongs to."""

    group: str
    questions: tuple[Question, ...]
    paint: Callable[[Canvas, np.random.Generator], None]


@dataclass(frozen=True)
class Task:
    """One kind of scene. groups: which of them the test split holds, in equal shares; training holds "seen" alone."""

    draw: Callable[[np.random.Generator], Scene]
    groups: tuple[str, ...]
