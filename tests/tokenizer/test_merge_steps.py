"""The merges of a token (merge_steps.py) against a plain BPE over whole words, and against the library."""

from itertools import pairwise

import pytest

from helpers.api import TEXT
from nano_llama import Tokenizer
from nano_llama.tokenizer.merge_steps import MergeSteps
from nano_llama.tokenizer.token_bytes import BYTE_ALPHABET

WORDS = ["the", " quick", "lazy", " naïve", "漢字", "🙂🙃", "aaaaaaa", "thethethe", " jumpsover", "\n\n"]
LETTERS = {byte: letter for letter, byte in BYTE_ALPHABET.items()}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train_bpe([TEXT + "aaa aaaa baaab " * 9], 330)


def word_merges(word: str, merges: list[tuple[str, str]]) -> tuple[list[str], list[tuple[str, str]]]:
    """BPE as its paper has it (Sennrich et al. 2016): the pieces of a word, and what was merged, one pair a time."""
    pieces, done = [LETTERS[byte] for byte in word.encode()], []
    while True:
        pairs = set(pairwise(pieces))
        if not (known := [merge for merge in merges if merge in pairs]):
            return pieces, done
        for place in range(len(pieces) - 1):
            if (pieces[place], pieces[place + 1]) == known[0]:
                done.append(known[0])
                pieces[place : place + 2] = ["".join(known[0])]
                break


@pytest.mark.parametrize("word", WORDS)
def test_the_merges_of_a_word_are_those_of_its_tokens(tokenizer, word):
    steps = MergeSteps(tokenizer.backend)
    pieces, done = word_merges(word, [tuple(merge) for merge in tokenizer.backend.document["model"]["merges"]])
    ids = tokenizer.encode(word)
    assert pieces == [tokenizer.backend.id_to_token(number) for number in ids], "the twin is what the library does"
    of_tokens = [list(steps.of(number)) for number in ids]
    joined = []
    while any(of_tokens):  # each time the one that comes first in the list; of equals the leftmost
        first = min((own for own in of_tokens if own), key=lambda own: own[0].rank)
        joined.append(first.pop(0))
    assert [(step.left, step.right) for step in joined] == done


def test_every_token_is_made_by_its_merges(tokenizer):
    steps = MergeSteps(tokenizer.backend)
    made = 0
    for number in range(tokenizer.vocab_size):
        own = steps.of(number)
        if number in tokenizer.special_ids:
            assert own is None
            continue
        token = tokenizer.backend.id_to_token(number)
        assert len(own) == len(token) - 1
        if own:
            assert own[-1].left + own[-1].right == token
            made += 1
    assert made == tokenizer.vocab_size - 257


def test_pieces_as_readers_know_them(tokenizer):
    steps = MergeSteps(tokenizer.backend)
    assert steps.text("Ġthe") == " the" and steps.text("Ã") == "\\xc3" and steps.text("Ã¯") == "ï"


def test_a_vocabulary_without_merges():
    tokenizer = Tokenizer.train_char("abc")
    assert MergeSteps(tokenizer.backend).of(0) is None and MergeSteps(tokenizer.backend).of(99) is None
