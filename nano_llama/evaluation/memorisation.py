"""Memorisation: the longest passage of a text that is, token for token, in the training data.

Every run of SEED tokens of the text is looked up in the training tokens at once (as a 64-bit hash, and then compared
exactly); each match is extended as far as the two agree. Matches shorter than SEED tokens, a handful of words, are
common to all English and are ignored.
Tests: tests/evaluation/test_memorisation.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nano_llama.data.batches import Tokens

SEED = 8  # tokens
CHUNK = 2**22  # training tokens processed at a time: 32 MB of hashes
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying is reversible


@dataclass(frozen=True)
class Match:
    """`length` tokens of text number `text`, from its token `start`, are at `position` of the training tokens."""

    text: int
    start: int
    length: int
    position: int


def longest_matches(texts: Sequence[Sequence[int]], training: Tokens) -> list[Match | None]:
    """For each text (token ids) its longest passage in `training`; None if no SEED tokens in a row are in it."""
    arrays = [np.asarray(text, np.uint64) for text in texts]
    places: dict[int, list[tuple[int, int]]] = {}  # hash -> (text, start) of each run of SEED tokens
    for number, array in enumerate(arrays):
        for start, value in enumerate(hashes(array).tolist()):
            places.setdefault(value, []).append((number, start))
    wanted = np.array(sorted(places), np.uint64)
    best: list[Match | None] = [None] * len(texts)
    for position, value in _found(wanted, training):
        for number, start in places[value]:
            length = _agreement(arrays[number][start:], training, position)
            known = best[number]
            if length >= SEED and (known is None or length > known.length):
                best[number] = Match(number, start, length, position)
    return best


def hashes(tokens: np.ndarray) -> np.ndarray:
    """A number for each run of SEED tokens: (n,) -> (n - SEED + 1,) uint64, modulo 2^64."""
    count = len(tokens) - SEED + 1
    value = np.zeros(max(count, 0), np.uint64)
    for offset in range(SEED if count > 0 else 0):
        value = value * _FACTOR + tokens[offset : offset + count].astype(np.uint64) + np.uint64(1)
    return value


def _found(wanted: np.ndarray, training: Tokens) -> Iterator[tuple[int, int]]:
    """Where in the training tokens a run with a wanted hash begins: (position, hash)."""
    for begin in range(0, training.num_tokens if len(wanted) else 0, CHUNK):
        here = hashes(training.read(begin, min(CHUNK + SEED - 1, training.num_tokens - begin)))
        nearest = np.searchsorted(wanted, here, side="right") - 1  # -1, the largest, is compared like any other
        hits = np.flatnonzero(wanted[nearest] == here)
        yield from zip((begin + hits).tolist(), here[hits].tolist(), strict=True)


def _agreement(text: np.ndarray, training: Tokens, position: int) -> int:
    """How many tokens agree from the beginning of `text` and from `position` on."""
    here = training.read(position, min(len(text), training.num_tokens - position)).astype(np.uint64)
    different = np.flatnonzero(here != text[: len(here)])
    return int(different[0]) if len(different) else len(here)
