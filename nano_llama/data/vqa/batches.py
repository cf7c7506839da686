"""Pictures with their questions -> rows of tokens, and batches of them.

A row is an image's places, then question after question, each with its answer and the token that ends a text:

    <image> ... <image>What colour is the shape? red<end>Which side is the shape on? left<end>

Only answers and ends are learned. The questions come in a random order, so that each is often the first one, as it is
when someone asks; one image is encoded once for all of them. Rows are short and differ in length, so several are packed
behind each other, and attention stays within each: of 16 pictures in rows of their own a third would be padding.
Tests: tests/data/vqa/test_batches.py.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.core.vision.pixels import to_pixel_values
from nano_llama.data.batches import Batch, BatchStream
from nano_llama.data.packing import pack
from nano_llama.data.vqa.questions import Question
from nano_llama.data.vqa.source import Picture, ShapesVQA
from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.image_token import image_token_id

WIDTHS = 64  # a batch is as wide as its fullest row, in steps of this: each shape is compiled once
ROWS = 2  # and has a multiple of so many rows
PADDING = 0  # any id: nothing learns from it or sees it


@dataclass(frozen=True)
class PictureRows:
    """Makes rows for one model: `tokenizer` has an image token, of which an image takes `image_seq_len`."""

    tokenizer: Tokenizer
    image_seq_len: int

    @cached_property
    def image_ids(self) -> list[int]:
        number = image_token_id(self.tokenizer)
        assert number is not None, "the tokenizer of a model that reads images"
        return [number] * self.image_seq_len

    def question(self, question: Question) -> tuple[list[int], list[int]]:
        """(the question's ids, the answer's and the end's)."""
        end = self.tokenizer.eos_id
        return self.tokenizer.encode(question.text), [
            *self.tokenizer.encode(f" {question.answer}"),
            *([] if end is None else [end]),
        ]

    def row(self, questions: Sequence[Question]) -> tuple[np.ndarray, np.ndarray]:
        """tokens (T,) and targets (T,): the next token where it is learned, else IGNORE_INDEX."""
        ids, learned = list(self.image_ids), [False] * self.image_seq_len
        for asked, answer in map(self.question, questions):
            ids += asked + answer
            learned += [False] * len(asked) + [True] * len(answer)
        tokens = np.array(ids, np.int64)
        return tokens[:-1], np.where(learned[1:], tokens[1:], IGNORE_INDEX)

    def batch(self, images: np.ndarray, questions: Sequence[Sequence[Question]], context: int) -> Batch:
        """images (B,S,S,3) and what is asked about each -> tokens, targets, documents (R,T), pixel_values (B,3,S,S).

        A picture with its questions is a document, and several share a row of up to `context` tokens. documents: the
        number of each token's in its row, -1 for padding. pixel_values: in the order in which the rows show them.
        Raises UserError for a document longer than `context`.
        """
        documents_of = [self.row(asked) for asked in questions]
        lengths = [len(tokens) for tokens, _ in documents_of]
        if max(lengths) > context:
            raise UserError(
                f"An image with its questions has {max(lengths)} tokens, in a context of {context}.",
                hint=f"Use --context {-(-max(lengths) // WIDTHS) * WIDTHS}.",
            )
        rows = pack(lengths, context)
        rows += [[]] * (-len(rows) % ROWS)
        used = max(sum(lengths[number] for number in row) for row in rows)
        shape = len(rows), min(context, -(-used // WIDTHS) * WIDTHS)
        tokens, targets = np.full(shape, PADDING, np.int64), np.full(shape, IGNORE_INDEX, np.int64)  # (R,T)
        documents = np.full(shape, -1, np.int64)  # (R,T)
        for place, row in enumerate(rows):
            end = 0
            for document, number in enumerate(row):
                start, end = end, end + lengths[number]
                tokens[place, start:end], targets[place, start:end] = documents_of[number]
                documents[place, start:end] = document
        return tokens, targets, documents, to_pixel_values(images[[number for row in rows for number in row]])


class PictureBatches(BatchStream):
    """An endless stream of batches: pictures 0, 1, 2 ... of `picture`, batch_size at a time.

    seed: of the questions' order. single_first: how many pictures come before all tasks do.
    """

    def __init__(
        self, picture: Callable[[int], Picture], rows: PictureRows, batch_size: int, context: int, seed: int = 0,
        single_first: int = 0,
    ):  # fmt: skip
        if batch_size < 1 or context < 1:
            raise UserError(f"batch size {batch_size}, context {context}: both must be at least 1.")
        super().__init__(batch_size, rows_per_epoch=EPOCH)
        self.picture, self.rows, self.context, self.seed = picture, rows, context, seed
        self.early_batches = -(-single_first // batch_size)

    def at(self, position: int) -> Batch:
        return self._batch(range(position * self.batch_size, (position + 1) * self.batch_size))

    def in_order(self, count: int) -> Iterator[Batch]:
        """The first `count` pictures, in batches of batch_size or fewer."""
        for first in range(0, count, self.batch_size):
            yield self._batch(range(first, min(first + self.batch_size, count)))

    def _batch(self, numbers: Sequence[int]) -> Batch:
        pictures = [self.picture(number) for number in numbers]
        generators = [np.random.default_rng((self.seed, number)) for number in numbers]
        questions = [
            [shown.questions[place] for place in rng.permutation(len(shown.questions))]
            for rng, shown in zip(generators, pictures, strict=True)
        ]
        return self.rows.batch(np.stack([shown.image for shown in pictures]), questions, self.context)


EPOCH = 2**31  # pictures: there is no last one, and no run sees so many


@dataclass(frozen=True)
class Course:
    """What a run is shown, by number: at first single shapes alone, then every task.

    It is a function of the number, so that a run that is resumed goes on with the same pictures.
    """

    tasks: tuple[str, ...]
    single_first: int  # how many pictures of single shapes come first
    seed: int = 0

    @cached_property
    def single(self) -> ShapesVQA:
        return ShapesVQA(("shape",), self.seed)

    @cached_property
    def all(self) -> ShapesVQA:
        return ShapesVQA(self.tasks, self.seed)

    def __call__(self, number: int) -> Picture:
        return (self.single if number < self.single_first else self.all).picture("train", number)

    def held_back(self, number: int) -> Picture:
        """A picture of the same combinations that no run trains on: what its validation loss is measured on."""
        return self.all.picture("train", EPOCH + number)
