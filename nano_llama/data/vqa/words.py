"""Scenes of one word of four to six letters, made up, in one of several fonts.

Consonants and vowels alternate, at random: no word can be guessed from its beginning. held_out_words: one in ten, by
the word's checksum, never occurs in training.

Training has two more kinds of scenes. Who learns to read begins with single letters: some show one short word, half of
these a single letter, in fonts of up to twice the size. And who has begun learns from pages: some show a few words one
below the other, thrice as many letters for an encoder to learn from as one word has.

The fonts are Pillow's own and matplotlib's DejaVu family; their pixels may differ a little between versions of Pillow.
Tests: tests/data/vqa/test_tasks.py.
"""

import zlib
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.errors import import_extra
from nano_llama.data.vqa.canvas import SIZE, Canvas
from nano_llama.data.vqa.questions import Scene, Task, ask

VOWELS, CONSONANTS = "aeiou", "bcdfghjklmnpqrstvwxyz"
FONTS = (  # None: Pillow's own
    None, "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono",
)  # fmt: skip
SIZES = range(11, 18)
LENGTHS = range(4, 7)
SHORT_SIZES = range(11, 35)
SHORT_LENGTHS = (1, 1, 2, 3)
SHORT = 0.3  # of the scenes of training
LINE_LENGTHS = range(1, 6)
LINES = range(2, 5)  # words on a page
MARGIN, GAP = 2, 2  # pixels at each edge, and between lines
ROOM = SIZE - 2 * MARGIN
PAGES = 0.35  # of the scenes of training
VOWEL_FIRST = 0.2  # of all words
HELD_OUT = 10  # one word in so many


def is_held_out_word(word: str) -> bool:
    return len(word) in LENGTHS and zlib.crc32(word.encode()) % HELD_OUT == 0


def word_task() -> Task:
    """Opens the fonts. Raises EnvironmentFault where Pillow is missing."""
    fonts = [[_font(name, size) for size in SHORT_SIZES] for name in FONTS]  # from small to large

    def draw(rng: np.random.Generator) -> Scene:
        kind, sizes = rng.random(), fonts[rng.integers(len(fonts))]
        if kind < PAGES:
            return _page(rng, sizes[: len(SIZES)])
        lengths, largest = (SHORT_LENGTHS, len(sizes)) if kind < PAGES + SHORT else (LENGTHS, len(SIZES))
        return _single_word(rng, _word(rng, lengths), sizes[:largest])

    return Task(draw, ("held_out_words",))


def _single_word(rng: np.random.Generator, word: str, sizes: Sequence[Any]) -> Scene:
    largest, (down, across) = int(rng.integers(len(sizes))), rng.random(2)

    def paint(canvas: Canvas, rng: np.random.Generator) -> None:
        ink = next(ink for font in sizes[largest::-1] if (ink := _ink(font, word)).shape[1] <= ROOM)  # (h,w)
        h, w = ink.shape
        canvas.cover(ink, int(MARGIN + down * (ROOM - h)), int(MARGIN + across * (ROOM - w)), _shade(canvas, rng))

    questions = (ask("word", word), ask("spelling", " ".join(word)))
    return Scene("held_out_words" if is_held_out_word(word) else "seen", questions, paint)


def _page(rng: np.random.Generator, sizes: Sequence[Any]) -> Scene:
    """A few words, each on a line of its own; none of them is held out."""
    drawn = (_word(rng, LINE_LENGTHS) for _ in count())
    words = list(islice((word for word in drawn if not is_held_out_word(word)), int(rng.choice(LINES))))
    largest, shares = int(rng.integers(len(sizes))), rng.random((len(words), 2))

    def paint(canvas: Canvas, rng: np.random.Generator) -> None:
        inked = ([_ink(font, word) for word in words] for font in sizes[largest::-1])
        inks = next(inks for inks in inked if _height(inks) <= ROOM and max(ink.shape[1] for ink in inks) <= ROOM)
        shade, top, below = _shade(canvas, rng), MARGIN, _height(inks)
        for ink, (down, across) in zip(inks, shares, strict=True):
            top += int(down * (SIZE - MARGIN - below - top + 1))  # below: what this line and all after it take
            canvas.cover(ink, top, MARGIN + int(across * (ROOM - ink.shape[1])), shade)
            top, below = top + len(ink) + GAP, below - len(ink) - GAP

    return Scene("seen", (ask("lines", ", ".join(" ".join(word) for word in words)),), paint)


def letter_chance() -> float:
    """How many letters are right of a word that is always the same, the best of all words to say blindly."""
    best = [
        max((1 - share) / len(CONSONANTS), share / len(VOWELS))  # share: how often this place has a vowel
        for length in LENGTHS
        for share in [VOWEL_FIRST if place % 2 == 0 else 1 - VOWEL_FIRST for place in range(length)]
    ]
    return sum(best) / len(best)


def _word(rng: np.random.Generator, lengths: Sequence[int]) -> str:
    first_is_vowel = bool(rng.random() < VOWEL_FIRST)
    length = lengths[int(rng.integers(len(lengths)))]
    choices = [VOWELS if (place % 2 == 0) == first_is_vowel else CONSONANTS for place in range(length)]
    return "".join(letters[rng.integers(len(letters))] for letters in choices)


def _height(inks: Sequence[np.ndarray]) -> int:
    """Of lines below each other, in pixels."""
    return sum(len(ink) + GAP for ink in inks) - GAP


def _shade(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Dark on light, or light on dark.    -> (3,)"""
    return rng.uniform(0, 60, 3) if canvas.is_light else rng.uniform(195, 255, 3)


def _font(name: str | None, size: int) -> Any:
    fonts = import_extra("PIL.ImageFont", "vision", "The task 'word' of shapes-vqa")
    if name is None:
        return fonts.load_default(size)
    found = find_spec("matplotlib")  # its folder alone: to import it takes longer than all the rest
    assert found is not None and found.origin is not None, "matplotlib is always installed"
    return fonts.truetype(str(Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf"), size)


def _ink(font: Any, word: str) -> np.ndarray:
    """How much of each pixel the word covers, cropped to it: (h,w) from 0 to 1."""
    mask = font.getmask(word, mode="L")
    return np.asarray(mask, np.float32).reshape(mask.size[::-1]) / 255
