"""Accuracy on shapes-vqa's test split: each question is asked alone, and the answer is what greedy decoding writes.

An answer is right where it is the expected text, whole, and ends there. Greedy decoding writes it exactly if each of
its tokens, the end included, is the likeliest after those before it; so one forward pass over question and answer
tells, and nothing has to be generated. Tests: tests/evaluation/test_vqa.py.

The control asks the same questions about the next picture of the same task. Who answers without looking is as good
there; who looks drops to chance.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.core.vision.pixels import to_pixel_values
from nano_llama.data.vqa import QUESTIONS, Picture, Question, ShapesVQA
from nano_llama.data.vqa.batches import PADDING, PictureRows
from nano_llama.vol2_torch.precision import resolve_precision
from nano_llama.vol2_torch.vision.model import VisionLanguageModel, splice

NUM_PICTURES = 1_000  # of the test split: 2,000 to 4,000 questions, about half a minute on two cores
ABOUT = {  # group -> the kinds of questions that its combinations bear on; of other groups all do
    "held_out_pairs": ("colour", "shape"),
    "held_out_places": ("shape", "side", "height"),
}
BATCH_SIZE = 32  # pictures at a time; it changes memory and speed, not the result


@dataclass(frozen=True, kw_only=True)
class Accuracies:
    """Shares of right answers, from 0 to 1.

    accuracy, control: by kind of question, on new pictures of what training has seen; and by group of held-out
    combinations, over the kinds that bear on it (ABOUT). asked: how many questions each is a share of. chance: of
    guessing, by kind.
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
    batch_size: int = BATCH_SIZE,
) -> Accuracies:  # fmt: skip
    """Of the first `num_pictures` of the test split."""
    begin = time.monotonic()
    pictures = list(source.pictures("test", count=num_pictures))
    others = following(pictures)
    right, other_picture = defaultdict[str, list[bool]](list), defaultdict[str, list[bool]](list)
    for first in range(0, num_pictures, batch_size):
        asked = pictures[first : first + batch_size]
        questions = [about(shown) for shown in asked]
        own = [shown.image for shown in asked]
        for images, found in ((own, right), (others[first : first + batch_size], other_picture)):
            answers = iter(answers_right(model, rows, np.stack(images), questions))
            for shown, of in zip(asked, questions, strict=True):
                for question in of:
                    found[question.kind if shown.group == "seen" else shown.group].append(next(answers))
    kinds = [kind for kind in right if kind in QUESTIONS and QUESTIONS[kind].choices]
    return Accuracies(
        accuracy=means(right), control=means(other_picture),
        chance={kind: 1 / len(QUESTIONS[kind].choices) for kind in kinds},
        asked={name: len(found) for name, found in right.items()},
        num_pictures=num_pictures, seconds=time.monotonic() - begin,
    )  # fmt: skip


def about(picture: Picture) -> list[Question]:
    """Its questions; of a held-out combination those that are about it: what else is asked would flatter the model."""
    kinds = ABOUT.get(picture.group)
    return [question for question in picture.questions if kinds is None or question.kind in kinds]


def following(pictures: Sequence[Picture]) -> list[np.ndarray]:
    """For each picture the image of the next one of its task; for the last, of the first one."""
    places = defaultdict[str, list[int]](list)
    for place, shown in enumerate(pictures):
        places[shown.task].append(place)
    nexts = {here: there for of in places.values() for here, there in zip(of, of[1:] + of[:1], strict=True)}
    return [pictures[nexts[place]].image for place in range(len(pictures))]


def means(found: Mapping[str, Sequence[bool]]) -> dict[str, float]:
    return {name: sum(answers) / len(answers) for name, answers in found.items()}


@torch.no_grad()
def answers_right(
    model: VisionLanguageModel, rows: PictureRows, images: np.ndarray, questions: Sequence[Sequence[Question]]
) -> list[bool]:
    """images (N,S,S,3) and what is asked about each -> for question after question whether its answer is right.

    An image is encoded once for all of its questions.
    """
    asked = [rows.row([question]) for of in questions for question in of]
    shape = len(asked), max(len(tokens) for tokens, _ in asked)
    padded = np.full((2, *shape), PADDING, np.int64)  # tokens and targets, each (B,T)
    padded[1] = IGNORE_INDEX
    for place, row in enumerate(asked):
        padded[:, place, : len(row[0])] = row
    tokens, targets = torch.from_numpy(padded).to(model.device)  # (B,T)
    counted = targets != IGNORE_INDEX  # (B,T)
    owners = torch.tensor([n for n, of in enumerate(questions) for _ in of], device=model.device)  # (B,)
    with resolve_precision("auto", model.device, model.config.text_config.hidden_size).autocast():
        encoded = model.encode(torch.from_numpy(to_pixel_values(images)).to(model.device))  # (N,n,D)
        text = model.model.text_model.embed_tokens(tokens)  # (B,T,D)
        x = splice(text, encoded[owners], tokens == model.config.image_token_id)
        hidden = model.language_model.decode(x)[counted]  # (answers' tokens, D)
        likeliest = model.logits(hidden).argmax(-1)
    wrong = torch.zeros_like(counted)
    wrong[counted] = likeliest != targets[counted]
    return (~wrong.any(dim=1)).tolist()
