"""Accuracy on shapes-vqa's test split: each question is asked alone, and the answer is what greedy decoding writes.

data/vqa/answers.py says when an answer is right, and what it counts for. The control asks the same questions about the
next picture of the same task. Who answers without looking is as good there; who looks drops to chance.
Tests: tests/evaluation/test_vqa.py.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from nano_llama.data.vqa import QUESTIONS, Picture, Question, ShapesVQA
from nano_llama.data.vqa.answers import about, judged, names_of, shares, written_answers
from nano_llama.data.vqa.batches import PictureRows
from nano_llama.data.vqa.words import letter_chance
from nano_llama.vol2_torch.precision import resolve_precision
from nano_llama.vol2_torch.vision.generate import answer_in
from nano_llama.vol2_torch.vision.model import VisionLanguageModel

NUM_PICTURES = 1_000  # of the test split: 2,000 to 4,000 questions, about half a minute on two cores
AT_A_TIME = 256  # pictures


@dataclass(frozen=True, kw_only=True)
class Accuracies:
    """Shares of right answers, from 0 to 1.

    accuracy, control: by kind of question, on new pictures of what training has seen (of digits and words, on new
    ones); by group of held-out combinations, over the kinds that bear on it; and "letters": of all letters of the
    words that are asked for, the share that stands in its place in what is written ("word_letters" and
    "spelling_letters" by kind). asked: how many answers, or letters, each is a share of. chance: of guessing.
    """

    accuracy: dict[str, float]
    control: dict[str, float]
    chance: dict[str, float]
    asked: dict[str, int]
    num_pictures: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "accuracy": self.accuracy, "control": self.control, "chance": self.chance, "asked": self.asked,
            "pictures": self.num_pictures, "seconds": self.seconds,
        }  # fmt: skip


def evaluate_pictures(
    model: VisionLanguageModel, rows: PictureRows, source: ShapesVQA, num_pictures: int = NUM_PICTURES,
    at_a_time: int = AT_A_TIME,
) -> Accuracies:  # fmt: skip
    """Of the first `num_pictures` of the test split."""
    begin = time.monotonic()
    pictures = list(source.pictures("test", count=num_pictures))
    questions, own, others = list(map(about, pictures)), [shown.image for shown in pictures], following(pictures)
    answer = partial(answer_in, resolve_precision("auto", model.device, model.config.text_config.hidden_size), model)

    def found(images: Sequence[np.ndarray]) -> dict[str, list[bool]]:
        written = []
        for first in range(0, num_pictures, at_a_time):
            part = slice(first, first + at_a_time)
            written += written_answers(answer, rows, np.stack(images[part]), questions[part])
        return judged(pictures, questions, written)

    right, chances = found(own), defaultdict[str, list[float]](list)
    for shown, of in zip(pictures, questions, strict=True):
        for question in of:
            for name in names_of(shown, question):
                chances[name].append(guessed(question))
    accuracy, chance = shares(right), shares(chances)
    return Accuracies(
        accuracy=accuracy, control=shares(found(others)),
        chance={name: chance.get(name, letter_chance()) for name in accuracy},
        asked={name: len(right[name]) for name in accuracy},
        num_pictures=num_pictures, seconds=time.monotonic() - begin,
    )  # fmt: skip


def guessed(question: Question) -> float:
    """How often a guess among all answers to such a question is right; of words, that cannot be listed, never."""
    choices = QUESTIONS[question.kind].choices
    return 1 / len(choices) if choices else 0.0


def following(pictures: Sequence[Picture]) -> list[np.ndarray]:
    """For each picture the image of the next one of its task; for the last, of the first one."""
    places = defaultdict[str, list[int]](list)
    for place, shown in enumerate(pictures):
        places[shown.task].append(place)
    nexts = {here: there for of in places.values() for here, there in zip(of, of[1:] + of[:1], strict=True)}
    return [pictures[nexts[place]].image for place in range(len(pictures))]
