"""A tokenizer from vocabulary and merges encodes as the one that they were taken from."""

import json

import pytest

from nano_llama.core.errors import UserError
from nano_llama.tokenizer import Tokenizer

TEXT = "the quick brown fox jumps over the lazy dog, and naïve 狐 too. " * 20
SPECIAL = "<|endoftext|>"


@pytest.fixture(scope="module")
def trained():
    tokenizer = Tokenizer.train_bpe([TEXT], 300)
    model = json.loads(tokenizer.backend.source)["model"]
    return tokenizer, model["vocab"], [tuple(pair) for pair in model["merges"]]


def in_bytes(tokenizer, vocab, merges):
    """Vocabulary and merges as one's own training has them."""
    pieces = {text: SPECIAL.encode() if text == SPECIAL else tokenizer.token_bytes(i) for text, i in vocab.items()}
    return {pieces[text]: i for text, i in vocab.items()}, [(pieces[a], pieces[b]) for a, b in merges]


@pytest.mark.parametrize("form", ["text", "bytes", "ids first", "lines"])
def test_it_is_the_same_tokenizer(trained, form):
    tokenizer, vocab, merges = trained
    if form == "lines":
        merges = ["#version: 0.2\n", *(f"{first} {second}\n" for first, second in merges)]
    elif form != "text":
        vocab, merges = in_bytes(*trained)
    if form == "ids first":
        vocab = {i: piece for piece, i in vocab.items()}
    made = Tokenizer.from_merges(vocab, merges, [SPECIAL])
    for text in (TEXT, "nothing of it: \n\n\t  Ünseen", f"{SPECIAL} typed"):
        assert made.encode(text) == tokenizer.encode(text)
        assert made.decode(made.encode(text)) == text
    assert made.encode(SPECIAL, parse_special=True) == tokenizer.encode(SPECIAL, parse_special=True)
    assert (made.vocab_size, made.eos_id, made.fingerprint) == (300, 0, tokenizer.fingerprint)


def test_new_special_tokens_get_the_next_ids(trained):
    _, vocab, merges = trained
    made = Tokenizer.from_merges(vocab, merges, [SPECIAL, "<|user|>"])
    assert made.encode("<|user|>", parse_special=True) == [300]
    assert made.vocab_size == 301


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda vocab, merges: (vocab, [*merges, ("zq", "x")]), "is not in the vocabulary"),
        (lambda vocab, merges: ({k: v for k, v in vocab.items() if k != "a"}, []), "lacks 1 of the 256 bytes"),
        (lambda vocab, merges: ({**vocab, "b": vocab["a"]}, merges), "same id"),
        (lambda vocab, merges: ({**vocab, "b": "7"}, merges), "is not a piece"),
        (lambda vocab, merges: (list(vocab), merges), r"vocab is a list.*\n.*dict\(enumerate\(pieces\)\)"),
        (lambda vocab, merges: (vocab, [*merges, "th"]), "merges: 'th' is not a pair"),
        (lambda vocab, merges: (vocab, [*merges, ("t", "h", "e")]), "is not a pair"),
        (lambda vocab, merges: (vocab, [*merges, (1, 2)]), "is not a pair"),
        (lambda vocab, merges: (vocab, [*merges, 7]), "is not a pair"),
    ],
)
def test_what_does_not_fit_together_is_refused(trained, change, says):
    with pytest.raises(UserError, match=says):
        Tokenizer.from_merges(*change(*trained[1:]))


def test_encode_iterable_reads_as_it_goes(trained):
    tokenizer = trained[0]
    read = []

    def lines():
        for line in ("the quick\n", "brown fox\n", "jumps"):
            read.append(line)
            yield line

    ids = tokenizer.encode_iterable(lines())
    first = next(ids)
    assert read == ["the quick\n"]
    rest = list(ids)
    assert [first, *rest] == [i for line in read for i in tokenizer.encode(line)]


def test_a_single_text_is_not_taken_for_its_letters(trained):
    for method in (trained[0].encode_iterable, trained[0].encode_batch):
        with pytest.raises(UserError, match=rf"{method.__name__} takes several texts, such as \[text\]"):
            method("the sea")
