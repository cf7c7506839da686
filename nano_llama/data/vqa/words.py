"""Scenes of one word of four to six letters, made up, in one of several fonts.

Consonants and vowels alternate, at random: no word can be guessed from its beginning. held_out_words: one in ten, by
the word's checksum, never occurs in training. Who learns to read begins with single letters: half of the words of
training are short, half of these are one letter, in fonts of up to twice the size; none of these is held out.

The fonts are Pillow's own and matplotlib's DejaVu family; their pixels may differ a little between versions of Pillow.
Tests: tests/data/vqa/test_tasks.py.
"""

import zlib
from collections.abc import Sequence
from importlib.util import find_spec
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
SHORT = 0.5  # of the words of training
VOWEL_FIRST = 0.2  # of all words
HELD_OUT = 10  # one word in so many


def is_held_out_word(word: str) -> bool:
    return len(word) in LENGTHS and zlib.crc32(word.encode()) % HELD_OUT == 0


def word_task() -> Task:
    """Opens the fonts. Raises EnvironmentFault where Pillow is missing."""
    fonts = [[_font(name, size) for size in SHORT_SIZES] for name in FONTS]  # from small to large

    def draw(rng: np.random.Generator) -> Scene:
        is_short = bool(rng.random() < SHORT)
        word, sizes = _word(rng, SHORT_LENGTHS if is_short else LENGTHS), fonts[rng.integers(len(fonts))]
        largest, place = int(rng.integers(len(SHORT_SIZES if is_short else SIZES))), rng.random(2)

        def paint(canvas: Canvas, rng: np.random.Generator) -> None:
            ink = next(ink for font in sizes[largest::-1] if (ink := _ink(font, word)).shape[1] <= SIZE - 4)  # (h,w)
            top, left = (int(2 + share * (SIZE - 4 - length)) for share, length in zip(place, ink.shape, strict=True))
            shade = rng.uniform(0, 60, 3) if canvas.is_light else rng.uniform(195, 255, 3)
            canvas.cover(ink, top, left, shade)

        questions = (ask("word", word), ask("spelling", " ".join(word)))
        return Scene("held_out_words" if is_held_out_word(word) else "seen", questions, paint)

    return Task(draw, ("held_out_words",))


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
