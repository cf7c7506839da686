"""A row of tokens -> training batches in a shuffled order that can be entered at any position, and validation windows.

Not here: prefetching (prefetch.py). Tests: tests/data/test_batches.py.

Training windows do not overlap within an epoch: a random offset, then window after window, in random order. So an epoch
shows each token once (but for the ragged ends, fewer than 2 contexts), and the next epoch cuts elsewhere. Drawing start
positions independently, as nanoGPT does, is simpler, but leaves 37% of the tokens unseen after one epoch of draws.

The order is a pseudo-random permutation, computed for the windows asked for (no table of them all): batch number p is a
function of (seed, p) alone. So a stream resumes from its position at no cost, and each worker makes its own batches.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.core.units import plural

Batch = tuple[np.ndarray, ...]  # tokens and targets, (B,T) each; with document_mask also documents (B,T)

BLOCK = 4096  # windows whose places are computed at a time
ROUNDS = 16  # of the Feistel network: with 6, orders of a handful of windows are not equally likely


class Tokens(Protocol):
    """What batches are cut from: a TokenSplit or an ArrayTokens."""

    @property
    def num_tokens(self) -> int: ...

    def read(self, start: int, count: int) -> np.ndarray: ...

    def document_ids(self, start: int, count: int) -> np.ndarray: ...


@dataclass(frozen=True)
class ArrayTokens:
    """Tokens in memory, (num_tokens,) integers, as a split. document_starts: ascending, (documents,), default one"""

    array: np.ndarray
    document_starts: tuple[int, ...] = (0,)

    @property
    def num_tokens(self) -> int:
        return len(self.array)

    def read(self, start: int, count: int) -> np.ndarray:
        if start < 0 or count < 0 or start + count > len(self.array):
            raise IndexError(f"tokens {start} to {start + count} of {len(self.array)}")
        return self.array[start : start + count]

    def document_ids(self, start: int, count: int) -> np.ndarray:
        return np.searchsorted(self.document_starts, np.arange(start, start + count), side="right") - 1


def tokens_in(batch: Batch) -> int:
    """How many tokens a batch has, without the padding that its documents mark."""
    tokens, _, *documents = batch
    return int(np.count_nonzero(documents[0] >= 0)) if documents else tokens.size


class BatchStream:
    """An endless stream of batches that can be entered at any position: `at` says what stands there.

    `position` is the number of batches drawn so far. An epoch has `rows_per_epoch` rows, a batch batch_size of them.
    The first `early_batches` hold a part only of what validation asks for.
    """

    early_batches = 0

    def __init__(self, batch_size: int, rows_per_epoch: int):
        self.batch_size, self.rows_per_epoch = batch_size, rows_per_epoch
        self.position = 0

    def at(self, position: int) -> Batch:
        """Batch number `position`, whatever was drawn before."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = self.at(self.position)
        self.position += 1
        return batch

    def next(self) -> Batch:
        """The next batch."""
        return next(self)

    def seek(self, position: int) -> None:
        """Continue as if `position` batches had been drawn."""
        if position < 0:
            raise UserError(f"position {position}: batches are counted from 0.")
        self.position = position

    def steps(self, epochs: float, accumulate: int = 1) -> int:
        """Steps of `accumulate` batches in which all rows are seen so often, rounded up."""
        return max(1, math.ceil(epochs * self.rows_per_epoch / (self.batch_size * accumulate)))

    @property
    def epoch(self) -> float:
        """How often all rows have been seen: 1.5 is the middle of the second epoch."""
        return self.position * self.batch_size / self.rows_per_epoch


class Batches(BatchStream):
    """An endless stream of (tokens, targets), each (B,T) int64, with targets[b,t] the token after tokens[b,t].

    Streams with the same arguments and position continue alike, on any machine. Raises UserError where the split is
    shorter than one window of context + 1 tokens.

    document_mask: attention stays within documents. A third array says which document each token belongs to, (B,T)
    int64, and a document's last token, whose next one it cannot know, has the target IGNORE_INDEX.
    """

    def __init__(self, split: Tokens, batch_size: int, context: int, seed: int = 0, document_mask: bool = False):
        if batch_size < 1 or context < 1:
            raise UserError(f"batch size {batch_size}, context {context}: both must be at least 1.")
        if split.num_tokens < context + 1:
            raise UserError(
                f"{plural(split.num_tokens, 'token')} to train on; a context of {context} needs {context + 1} or more.",
                hint="Give more text or a smaller context.",
            )
        # One window fewer than fit, so that an epoch can begin anywhere within the first context and more.
        super().__init__(batch_size, rows_per_epoch=max(1, split.num_tokens // context - 1))
        self.split, self.context, self.seed = split, context, seed
        self.document_mask = document_mask
        spare = split.num_tokens - 1 - self.rows_per_epoch * context  # the last target needs one token more
        self.offsets = spare + 1
        self._cached = (-1, np.zeros(0, np.int64))  # number of a block, its starts

    def at(self, position: int) -> Batch:
        """Tokens (B,T), targets (B,T), and with document_mask documents (B,T)."""
        tokens = np.empty((self.batch_size, self.context), np.int64)  # (B,T)
        targets = np.empty_like(tokens)  # (B,T)
        documents = np.empty_like(tokens)  # (B,T)
        for row, start in enumerate(self.starts(position).tolist()):
            window = self.split.read(start, self.context + 1)  # (T+1,)
            tokens[row], targets[row] = window[:-1], window[1:]
            if self.document_mask:
                ids = self.split.document_ids(start, self.context + 1)  # (T+1,)
                documents[row] = ids[:-1]
                targets[row, ids[1:] != ids[:-1]] = IGNORE_INDEX
        return (tokens, targets, documents) if self.document_mask else (tokens, targets)

    def starts(self, position: int) -> np.ndarray:
        """Where the windows of a batch begin in the split, (B,) int64."""
        first = position * self.batch_size
        last = first + self.batch_size - 1
        blocks = [self._block(number) for number in range(first // BLOCK, last // BLOCK + 1)]
        return np.concatenate(blocks)[first % BLOCK :][: self.batch_size]

    def _block(self, number: int) -> np.ndarray:
        """The starts of BLOCK windows of the stream, (BLOCK,) int64: computing few costs as much as many."""
        if self._cached[0] != number:
            drawn = np.arange(number * BLOCK, (number + 1) * BLOCK)
            epochs, indices = np.divmod(drawn, self.rows_per_epoch)
            offsets = (_hash(self.seed, epochs, ROUNDS) % np.uint64(self.offsets)).astype(np.int64)
            order = shuffled(indices, self.rows_per_epoch, self.seed, epochs)
            self._cached = (number, offsets + order * self.context)
        return self._cached[1]


def shuffled(indices: np.ndarray, count: int, seed: int, epochs: np.ndarray) -> np.ndarray:
    """Where each index goes in a permutation of 0 .. count-1 that (seed, its epoch) fixes. All (B,) int64.

    A Feistel network permutes numbers of a given width in bits: each round changes a part of a number by a hash of the
    other part, which is reversible, so no two numbers collide. A result out of range is put in again until it is in
    range ("cycle walking", Black and Rogaway 2002): on average at most once more, as over half of all numbers are.
    """
    bits = max(2, (count - 1).bit_length())
    low_bits = np.uint64(bits // 2)
    low_mask, high_mask = np.uint64((1 << bits // 2) - 1), np.uint64((1 << bits - bits // 2) - 1)
    keys = [_hash(seed, epochs, r) for r in range(ROUNDS)]  # ROUNDS x (B,)
    result = indices.astype(np.uint64)
    walking = np.ones(len(result), bool)
    while walking.any():
        high, low = result >> low_bits, result & low_mask
        for r, key in enumerate(keys):
            if r % 2:
                low ^= _scramble(high ^ key) & low_mask
            else:
                high ^= _scramble(low ^ key) & high_mask
        result = np.where(walking, high << low_bits | low, result)
        walking &= result >= count
    return result.astype(np.int64)


def _hash(seed: int, epochs: np.ndarray, use: int) -> np.ndarray:
    """64 random-looking bits for each epoch, (B,) uint64; another `use`, other bits."""
    start = np.uint64((seed * 0x9E3779B97F4A7C15 + use * 0xD1B54A32D192ED03) % 2**64)
    return _scramble(_scramble(epochs.astype(np.uint64) ^ start) + start)


def _scramble(words: np.ndarray) -> np.ndarray:
    """uint64 -> uint64, each bit of which depends on all (the finalizer of SplitMix64, Steele et al. 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


@dataclass(frozen=True)
class Validation:
    """What a validation loss is computed from: all batches of a split, each anew when asked for.

    num_targets: those that are counted. num_bytes: of the text that they stand for.
    """

    batches: Callable[[], Iterator[Batch]]
    num_batches: int
    num_targets: int
    num_bytes: int


def validation(split: Tokens, num_bytes: int, context: int, batch_size: int) -> Validation:
    """All windows of a split, whose text has so many bytes."""
    targets = max(split.num_tokens - 1, 0)
    return Validation(
        lambda: validation_batches(split, context, batch_size),
        num_batches=-(-targets // (batch_size * context)), num_targets=targets, num_bytes=num_bytes,
    )  # fmt: skip


def windows(split: Tokens, context: int) -> Iterator[tuple[int, int]]:
    """(start, length) of consecutive, non-overlapping windows that count every target of the split once.

    The window's tokens are start .. start+length-1, its targets one further; all have `context` tokens except the last.
    """
    counted = split.num_tokens - 1  # the first token is not a target
    for start in range(0, counted, context):
        yield start, min(context, counted - start)


def validation_batches(split: Tokens, context: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All windows of the split in order, (tokens, targets) of one shape (B,T) int64; what is missing is ignored.

    B is `batch_size`, or the number of windows where they are fewer. The counted targets are num_tokens - 1 in all.
    """
    if batch_size < 1 or context < 1:
        raise UserError(f"batch size {batch_size}, context {context}: both must be at least 1.")
    if split.num_tokens < 2:
        have = plural(split.num_tokens, "token")
        raise UserError(f"{have} to validate on: at least 2 are needed.", hint="Give more text.")
    spans = list(windows(split, context))
    rows = min(batch_size, len(spans))
    for first in range(0, len(spans), rows):
        tokens = np.zeros((rows, context), np.int64)  # (B,T)
        targets = np.full((rows, context), IGNORE_INDEX, np.int64)  # (B,T)
        for row, (start, length) in enumerate(spans[first : first + rows]):
            window = split.read(start, length + 1)
            tokens[row, :length], targets[row, :length] = window[:-1], window[1:]
        yield tokens, targets
