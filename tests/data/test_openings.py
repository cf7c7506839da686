"""Openings of text are tested in tests/training/test_samples.py; here: a split without whole lines."""

import numpy as np

from nano_llama.data.batches import ArrayTokens
from nano_llama.data.openings import openings
from nano_llama.tokenizer import Tokenizer


def test_text_without_a_line_opens_too():
    tokenizer = Tokenizer.train_char("ab \n")
    split = ArrayTokens(np.array(tokenizer.encode("ab" * 300)))
    found = openings(split, tokenizer, 2, 8)
    assert [len(opening.ids) <= 8 for opening in found] == [True, True]
    assert all(tokenizer.decode(opening.ids) == opening.text for opening in found)
