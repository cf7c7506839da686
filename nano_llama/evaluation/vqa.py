"""Accuracy on shapes-vqa's test split: each question is asked alone, and the answer is what greedy decoding writes.

An answer is right where it is the expected text, whole, and ends there. Greedy decoding writes it exactly if each of
its tokens, the end included, is the likeliest after those before it; so one forward pass over question and answer
tells, and nothing has to be generated. Tests: tests/evaluation/test_vqa.py.

Words are judged by their letters too. For that they are generated, as a wrong letter changes what follows.

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
from nano_llama.data.vqa.words import letter_chance
from nano_llama.vol2_torch.precision import resolve_precision
from nano_llama.vol2_torch.vision.generate import greedy_answers, next_tokens
from nano_llama.vol2_torch.vision.model import VisionLanguageModel, splice

NUM_PICTURES = 1_000  # of the test split: 2,000 to 4,000 questions, about half a minute on two cores
ABOUT = {  # group -> the kinds of questions that its combinations bear on; of other groups all do
    "held_out_pairs": ("colour", "shape"),
    "held_out_places": ("shape", "side", "height"),
}
NEW_THROUGHOUT = ("held_out_samples", "held_out_words")  # of digits and words the test has no others
LETTERS = "letters"
MAX_TOKENS = 16  # of an answer that is generated: more than any right one has
BATCH_SIZE = 32  # pictures at a time; it changes memory and speed, not the result


@dataclass(frozen=True, kw_only=True)
class Accuracies:
    """Shares of right answers, from 0 to 1.

    accuracy, control: by kind of question, on new pictures of what training has seen (of digits and words, on new
    ones); by group of held-out combinations, over the kinds that bear on it (ABOUT); and "letters": of all letters of
    the words that are asked for, the share that stands in its place in what is written ("word_letters" and
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
    batch_size: int = BATCH_SIZE,
) -> Accuracies:  # fmt: skip
    """Of the first `num_pictures` of the test split."""
    begin = time.monotonic()
    pictures = list(source.pictures("test", count=num_pictures))
    others = following(pictures)
    right, other_picture = defaultdict[str, list[bool]](list), defaultdict[str, list[bool]](list)
    chances = defaultdict[str, list[float]](list)
    for first in range(0, num_pictures, batch_size):
        asked = pictures[first : first + batch_size]
        questions = [about(shown) for shown in asked]
        for shown, of in zip(asked, questions, strict=True):
            for question in of:
                for name in names_of(shown, question):
                    chances[name].append(guessed(question))
        own = [shown.image for shown in asked]
        for images, found in ((own, right), (others[first : first + batch_size], other_picture)):
            answers = iter(answers_right(model, rows, np.stack(images), questions))
            for shown, of in zip(asked, questions, strict=True):
                for question in of:
                    answer = next(answers)
                    for name in names_of(shown, question):
                        found[name].append(answer)
            read_letters(model, rows, images, questions, found)
    names = sorted(right, key=lambda name: list(QUESTIONS).index(name) if name in QUESTIONS else len(QUESTIONS))
    accuracy, control, chance = (means(shares) for shares in (right, other_picture, chances))
    return Accuracies(
        accuracy={name: accuracy[name] for name in names}, control={name: control[name] for name in names},
        chance={name: chance.get(name, letter_chance()) for name in names},
        asked={name: len(right[name]) for name in names},
        num_pictures=num_pictures, seconds=time.monotonic() - begin,
    )  # fmt: skip


def about(picture: Picture) -> list[Question]:
    """Its questions; of a held-out combination those that are about it: what else is asked would flatter the model."""
    kinds = ABOUT.get(picture.group)
    return [question for question in picture.questions if kinds is None or question.kind in kinds]


def names_of(picture: Picture, question: Question) -> list[str]:
    """What its answer counts for: its kind, its picture's group, or both."""
    kind = [question.kind] if picture.group in ("seen", *NEW_THROUGHOUT) else []
    return kind + ([] if picture.group == "seen" else [picture.group])


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


def means(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: sum(answers) / len(answers) for name, answers in found.items()}


def read_letters(
    model: VisionLanguageModel, rows: PictureRows, images: Sequence[np.ndarray],
    questions: Sequence[Sequence[Question]], found: Mapping[str, list[bool]],
) -> None:  # fmt: skip
    """Adds to `found` what `letters_right` says of the words that are asked for, and of those that the model writes."""
    asked = [
        (image, question)
        for image, of in zip(images, questions, strict=True)
        for question in of
        if not QUESTIONS[question.kind].choices
    ]
    if not asked:
        return
    written = write_answers(model, rows, np.stack([image for image, _ in asked]), [question for _, question in asked])
    for (_, question), answer in zip(asked, written, strict=True):
        for name in (LETTERS, f"{question.kind}_{LETTERS}"):
            found[name] += letters_right(answer, question.answer)


def letters_right(written: str, answer: str) -> list[bool]:
    """For each letter of the answer whether it stands in its place; the spaces of a spelling do not count."""
    found, letters = written.replace(" ", ""), answer.replace(" ", "")
    return [mine == letter for mine, letter in zip(found.ljust(len(letters)), letters, strict=False)]


def write_answers(
    model: VisionLanguageModel, rows: PictureRows, images: np.ndarray, questions: Sequence[Question]
) -> list[str]:
    """images (N,S,S,3) and a question about each -> what greedy decoding writes."""
    prompts = [rows.image_ids + rows.question(question)[0] for question in questions]
    pixel_values = torch.from_numpy(to_pixel_values(images)).to(model.device)
    with resolve_precision("auto", model.device, model.config.text_config.hidden_size).autocast():
        answers = greedy_answers(model, prompts, pixel_values, MAX_TOKENS)
    return [rows.tokenizer.decode(answer).strip() for answer in answers]


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
        likeliest = next_tokens(model, hidden)
    wrong = torch.zeros_like(counted)
    wrong[counted] = likeliest != targets[counted]
    return (~wrong.any(dim=1)).tolist()
