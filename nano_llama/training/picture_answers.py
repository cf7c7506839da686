"""A run on pictures asks its model about the validation pictures at each evaluation: accuracies by kind, and samples.

Each question is asked alone, and the answers are greedy, as `nano-llama eval` asks (data/vqa/answers.py); but these are
new draws of what training shows, and the held-out combinations stay unseen.
Tests: tests/training/test_picture_answers.py.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core import files
from nano_llama.data.vqa import Picture, contact_sheet
from nano_llama.data.vqa.answers import Answer, about, judged, shares, written_answers
from nano_llama.data.vqa.canvas import SIZE
from nano_llama.data.vqa.dataset import NUM_VALIDATION, PictureDataset
from nano_llama.training.budget import Clock
from nano_llama.training.samples import Sample

AT_A_TIME = 32  # pictures
HEAD = "The pictures of samples.png, what is asked about them, and what the model answers (▸), at each evaluation.\n"
GiveUp = Callable[[float], bool]  # seconds that the last ones took -> whether no time is left for the next


class PictureAnswers:
    """shown: how many pictures are samples, the first ones; each with all its questions."""

    def __init__(self, dataset: PictureDataset, answer: Answer, shown: int):
        self.dataset, self.answer, self.shown = dataset, answer, min(shown, NUM_VALIDATION)
        self.samples: list[Sample] = []

    def ask(self, seconds: float, clock: Clock, give_up: GiveUp) -> dict[str, float]:
        """Accuracies by kind; {} where time does not last. seconds: that the first pictures are thought to take."""
        pictures, written = [self.dataset.course.held_back(number) for number in range(NUM_VALIDATION)], []
        questions = list(map(about, pictures))
        for first in range(0, NUM_VALIDATION, AT_A_TIME):
            if give_up(seconds):
                return {}
            begin, part = clock(), slice(first, first + AT_A_TIME)
            images = np.stack([shown.image for shown in pictures[part]])
            written += written_answers(self.answer, self.dataset.rows, images, questions[part])
            seconds = clock() - begin
        self.samples = [
            Sample(
                f"{number}: {' '.join(asked.text for asked in of)} ", ", ".join(answers),
                ", ".join(asked.answer for asked in of),
            )
            for number, (of, answers) in enumerate(zip(questions[: self.shown], written, strict=False), start=1)
        ]  # fmt: skip
        return shares(judged(pictures, questions, written))

    def draw(self, *_: Any) -> list[Sample]:
        """What was answered last about the first pictures."""
        return self.samples

    def save_pictures(self, path: Path) -> None:
        """The pictures of the samples, in their order, with their questions and the right answers."""
        pictures: list[Picture] = [self.dataset.course.held_back(number) for number in range(self.shown)]
        caption = (
            f"shapes-vqa, {SIZE} x {SIZE} pixels, seed {self.dataset.course.seed}: held back from training, each with"
            " the right answers; what the model answers is in samples.md"
        )
        with files.atomic_path(path) as temporary:
            contact_sheet(pictures, caption=caption).save(temporary, format="PNG")
