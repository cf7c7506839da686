"""shapes-vqa as a training run asks for its data: batches, validation, a fingerprint.

data/dataset.py answers the same questions for text. Tests: tests/data/vqa/test_dataset.py.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.data.batches import Validation
from nano_llama.data.openings import Opening
from nano_llama.data.vqa.batches import EPOCH, Course, PictureBatches, PictureRows
from nano_llama.tokenizer import Tokenizer

NUM_VALIDATION = 256  # pictures


@dataclass(frozen=True)
class PictureSplit:
    """num_learned tokens are answers, and stand for num_bytes of text in UTF-8."""

    num_pictures: int
    num_tokens: int
    num_learned: int
    num_bytes: int


class PictureDataset:
    """Endless pictures to train on, and as many as are validated. The test split is for `nano-llama eval` alone."""

    def __init__(self, course: Course, rows: PictureRows):
        self.course, self.rows, self.tokenizer = course, rows, rows.tokenizer
        self.vocab_size = self.tokenizer.vocab_size

    @cached_property
    def val(self) -> PictureSplit:
        shown = [self.course.held_back(number).questions for number in range(NUM_VALIDATION)]
        rows = [self.rows.row(questions) for questions in shown]
        return PictureSplit(
            NUM_VALIDATION,
            num_tokens=sum(len(tokens) for tokens, _ in rows),
            num_learned=sum(int(np.count_nonzero(targets != IGNORE_INDEX)) for _, targets in rows),
            num_bytes=sum(len(f" {asked.answer}".encode()) for questions in shown for asked in questions),
        )

    @property
    def train(self) -> PictureSplit:
        """As if every picture had as many tokens as those of validation."""
        val, times = self.val, EPOCH // NUM_VALIDATION
        return PictureSplit(EPOCH, val.num_tokens * times, val.num_learned * times, val.num_bytes * times)

    @cached_property
    def fingerprint(self) -> str:
        """A hex digest of all that decides which batches a run is shown."""
        course = self.course
        parts = (course.all.fingerprint(), course.single_first, self.rows.image_seq_len, self.tokenizer.fingerprint)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def training_batches(self, batch_size: int, context: int, seed: int, document_mask: bool) -> PictureBatches:
        return PictureBatches(self.course, self.rows, batch_size, context, seed, self.course.single_first)

    def validation(self, batch_size: int, context: int, document_mask: bool) -> Validation:
        batches = PictureBatches(self.course.held_back, self.rows, batch_size, context)
        return Validation(
            lambda: batches.in_order(NUM_VALIDATION), num_batches=-(-NUM_VALIDATION // batch_size),
            num_targets=self.val.num_learned, num_bytes=self.val.num_bytes,
        )  # fmt: skip

    def openings(self, count: int, most_tokens: int) -> list[Opening]:
        """None: samples are answers about pictures (training/picture_answers.py)."""
        return []


def picture_dataset(
    tokenizer: Tokenizer, image_seq_len: int, *, tasks: tuple[str, ...], single_first: int, seed: int
) -> PictureDataset:
    """tokenizer: with an image token. Raises what ShapesVQA raises."""
    course = Course(tasks, single_first, seed)
    assert course.all.tasks == tasks, "opened here, so that a task that is missing is refused before the run begins"
    return PictureDataset(course, PictureRows(tokenizer, image_seq_len))
