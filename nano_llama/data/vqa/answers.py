"""Questions put to a model, each alone, and what its answers count for. The model is a function that is handed in.

An answer is right where the whole text is the expected one; words are judged by their letters too.
Tests: tests/data/vqa/test_answers.py.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nano_llama.core.vision.pixels import to_pixel_values
from nano_llama.data.vqa.batches import PictureRows
from nano_llama.data.vqa.questions import QUESTIONS, Question
from nano_llama.data.vqa.source import Picture

# prompts, pixel_values (N,3,S,S), for each prompt which of these it is about, max_tokens -> what greedy decoding writes
Answer = Callable[[Sequence[list[int]], np.ndarray, Sequence[int], int], list[list[int]]]

MAX_TOKENS = 16  # of an answer: more than any right one has
ABOUT = {  # group -> the kinds of questions that its combinations bear on; of other groups all do
    "held_out_pairs": ("colour", "shape"),
    "held_out_places": ("shape", "side", "height"),
}
NEW_THROUGHOUT = ("held_out_samples", "held_out_words")  # of digits and words the test has no others
LETTERS = "letters"


def about(picture: Picture) -> list[Question]:
    """Its questions; of a held-out combination those that are about it: what else is asked would flatter the model."""
    kinds = ABOUT.get(picture.group)
    return [question for question in picture.questions if kinds is None or question.kind in kinds]


def written_answers(
    answer: Answer, rows: PictureRows, images: np.ndarray, questions: Sequence[Sequence[Question]]
) -> list[list[str]]:
    """images (N,S,S,3) and what is asked about each -> what the model writes to each question."""
    prompts = [rows.image_ids + rows.question(question)[0] for of in questions for question in of]
    owners = [number for number, of in enumerate(questions) for _ in of]
    texts = (rows.tokenizer.decode(ids).strip() for ids in answer(prompts, to_pixel_values(images), owners, MAX_TOKENS))
    return [[next(texts) for _ in of] for of in questions]


def judged(
    pictures: Sequence[Picture], questions: Sequence[Sequence[Question]], written: Sequence[Sequence[str]]
) -> dict[str, list[bool]]:
    """For each name that something counts for (names_of, and letters by kind) whether it is right, in order."""
    found = defaultdict[str, list[bool]](list)
    for picture, asked, answers in zip(pictures, questions, written, strict=True):
        for question, text in zip(asked, answers, strict=True):
            for name in names_of(picture, question):
                found[name].append(text == question.answer)
            if not QUESTIONS[question.kind].choices:
                for name in (LETTERS, f"{question.kind}_{LETTERS}"):
                    found[name] += letters_right(text, question.answer)
    return found


def names_of(picture: Picture, question: Question) -> list[str]:
    """What its answer counts for: its kind, its picture's group, or both."""
    kind = [question.kind] if picture.group in ("seen", *NEW_THROUGHOUT) else []
    return kind + ([] if picture.group == "seen" else [picture.group])


def letters_right(written: str, answer: str) -> list[bool]:
    """For each letter of the answer whether it stands in its place; the spaces of a spelling do not count."""
    found, letters = written.replace(" ", ""), answer.replace(" ", "")
    return [mine == letter for mine, letter in zip(found.ljust(len(letters)), letters, strict=False)]


def shares(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The mean of each, by kind in the order of QUESTIONS, then the others."""
    order = [*(kind for kind in QUESTIONS if kind in found), *(name for name in found if name not in QUESTIONS)]
    return {name: sum(found[name]) / len(found[name]) for name in order}
