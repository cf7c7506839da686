"""Openings: the beginnings that a model in training continues at each evaluation, taken from the validation split.

Tests: tests/data/test_openings.py, tests/training/test_samples.py.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nano_llama.data.batches import Tokens

if TYPE_CHECKING:
    from nano_llama.tokenizer import Tokenizer

CHARACTERS = 32  # of an opening, at most


@dataclass(frozen=True)
class Opening:
    """ids: of `text`, as the model is given them. answer: what should follow, where the data says it."""

    text: str
    ids: list[int]
    answer: str = ""


def openings(split: Tokens, tokenizer: "Tokenizer", count: int, most_tokens: int) -> list[Opening]:
    """`count` openings, spread evenly over a split: the first words of a line each, at most `most_tokens` tokens."""
    found = []
    for number in range(count):
        begin = number * split.num_tokens // count
        piece = tokenizer.decode(split.read(begin, min(256, split.num_tokens - begin)).tolist(), continues=True)
        line = (piece if number == 0 else piece.partition("\n")[2] or piece).strip().strip("\ufffd")
        text = line[:CHARACTERS]
        text = (text.rpartition(" ")[0] or text) if len(line) > len(text) else text
        while len(text) > 1 and len(tokenizer.encode(text)) > max(most_tokens, 1):
            text = text[: len(text) // 2]
        if text:
            found.append(Opening(text, tokenizer.encode(text)))
    return found
