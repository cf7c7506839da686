"""SentencePiece BPE out of tokens and scores, held to the sentencepiece library itself."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nano_llama.core.errors import UserError
from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.gguf import from_metadata
from nano_llama.tokenizer.sentencepiece import merges_from_scores, scores_from_merges

from .conftest import CORPUS, HARD_TEXTS


@pytest.fixture(scope="module")
def tokenizer(sentencepiece_metadata) -> Tokenizer:
    return Tokenizer(*from_metadata(sentencepiece_metadata))


@pytest.mark.parametrize("text", [text for text in HARD_TEXTS if "\x00" not in text] + CORPUS[:3])
def test_ids_are_sentencepieces_own(tokenizer, sentencepiece_model, text):
    assert tokenizer.encode(text, add_bos=False) == sentencepiece_model.encode(text)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("abc d\n  xyéö日🙂1"), max_size=40))
def test_ids_of_random_texts_are_sentencepieces_own(sentencepiece_pair, text):
    ours, theirs = sentencepiece_pair
    assert ours.encode(text, add_bos=False) == theirs.encode(text)


@pytest.fixture(scope="module")
def sentencepiece_pair(tokenizer, sentencepiece_model):
    return tokenizer, sentencepiece_model


@pytest.mark.parametrize("text", [text for text in HARD_TEXTS if "▁" not in text])
def test_round_trip_is_exact(tokenizer, text):
    """Byte fallback writes what has no token; the space before the first word comes off again."""
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_bos_is_added_unless_the_file_says_no(tokenizer, sentencepiece_metadata):
    assert tokenizer.encode("a")[0] == tokenizer.bos_id == 1
    without = Tokenizer(*from_metadata(sentencepiece_metadata | {"tokenizer.ggml.add_bos_token": False}))
    assert without.encode("a") == tokenizer.encode("a", add_bos=False)
    both = Tokenizer(*from_metadata(sentencepiece_metadata | {"tokenizer.ggml.add_eos_token": True}))
    assert both.encode("a") == [*tokenizer.encode("a"), 2]


def test_without_the_space_prefix_text_is_taken_as_it_is(sentencepiece_metadata):
    bare = Tokenizer(*from_metadata(sentencepiece_metadata | {"tokenizer.ggml.add_space_prefix": False}))
    assert bare.token_bytes(bare.encode("a", add_bos=False)[0]) == b"a"
    assert bare.decode(bare.encode(" a  b")) == " a  b"


def test_arrays_of_numpy_do_as_well(tokenizer, sentencepiece_metadata):
    """Our own GGUF reader hands over arrays."""
    arrays = dict(sentencepiece_metadata)
    arrays["tokenizer.ggml.scores"] = np.array(arrays["tokenizer.ggml.scores"], np.float32)
    arrays["tokenizer.ggml.token_type"] = np.array(arrays["tokenizer.ggml.token_type"], np.int32)
    assert Tokenizer(*from_metadata(arrays)).fingerprint == tokenizer.fingerprint


def test_a_typed_special_token_stays_text(tokenizer):
    ids = tokenizer.encode("</s> and <s>", add_bos=False)
    assert tokenizer.special_ids.isdisjoint(ids)
    assert tokenizer.decode(ids) == "</s> and <s>"
    assert tokenizer.encode("</s>", add_bos=False, parse_special=True) == [2]


def slow_sentencepiece(text: str, scores: dict[str, float]) -> list[str]:
    """The algorithm as its paper tells it: join the best-scoring neighbours, of equals the leftmost."""
    pieces = list(text)
    while True:
        joins = [(-scores[a + b], place) for place, (a, b) in enumerate(pairwise(pieces)) if a + b in scores]
        if not joins:
            return pieces
        place = min(joins)[1]
        pieces[place : place + 2] = ["".join(pieces[place : place + 2])]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_merges_follow_the_paper(data):
    """Random vocabularies over two letters, where almost everything can join. Scores differ, as a training's do."""
    from tokenizers import Tokenizer as Library
    from tokenizers import models

    words = data.draw(st.sets(st.text("ab", min_size=2, max_size=4), max_size=12))
    tokens = ["a", "b", *sorted(words)]
    scores = data.draw(st.permutations([-float(number) for number in range(len(tokens))]))
    merges = merges_from_scores(tokens, [True] * len(tokens), scores)
    library = Library(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    text = data.draw(st.text("ab", max_size=10))
    assert library.encode(text).tokens == slow_sentencepiece(text, dict(zip(tokens, scores, strict=True)))


def test_scores_and_merges_say_the_same(sentencepiece_metadata, tokenizer):
    merges = [tuple(merge) for merge in tokenizer.backend.document["model"]["merges"]]
    tokens = sentencepiece_metadata["tokenizer.ggml.tokens"]
    mergeable = [kind == 1 for kind in sentencepiece_metadata["tokenizer.ggml.token_type"]]
    scores = scores_from_merges(tokens, mergeable, merges)
    assert merges_from_scores(tokens, mergeable, scores) == merges


def test_merges_that_scores_cannot_tell_are_refused():
    with pytest.raises(UserError, match="never join"):
        scores_from_merges(["a", "b", "c", "ab", "bc", "abc"], [True] * 6, [("a", "b"), ("ab", "c"), ("b", "c")])
