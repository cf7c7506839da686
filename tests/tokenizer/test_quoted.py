"""Typed special tokens are text, and all else is cut as it is when nobody types one, whatever the tokens' flags are."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Library

from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.backend import Backend
from nano_llama.tokenizer.gguf import from_metadata
from nano_llama.tokenizer.special_text import SpecialText

START, END = "<|im_start|>", "<|im_end|>"
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
WORDS = ("EOT", "dog", "<t>", "_x_", "\n", "the d")


def with_tokens(library, tokens, template):
    library = Library.from_str(library.to_str())
    for token in tokens:
        (library.add_special_tokens if token.special else library.add_tokens)([token])
    return Tokenizer(Backend(library), chat_template=template)


def byte_level(bpe, metadata):
    return Library.from_str(bpe.backend.source)


def byte_level_normalized(bpe, metadata):
    library = byte_level(bpe, metadata)
    library.normalizer = normalizers.NFC()
    return library


def sentencepiece(bpe, metadata):
    return Library.from_str(Tokenizer(*from_metadata(metadata)).backend.source)


def newer_sentencepiece(bpe, metadata):
    library = Library.from_str(json.dumps(json.loads(sentencepiece(bpe, metadata).to_str()) | {"normalizer": None}))
    library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return library


KINDS = [byte_level, byte_level_normalized, sentencepiece, newer_sentencepiece]
TEMPLATE = (
    f"{START}GEOTHERMAL EOT the dog {{{{ messages[0].content }}}} EOT{END}dog EOT\n<t>the dog_x_ "
    f"{START}{{{{ messages[1].content }}}}{END}"
)
PIECES = ["dog", " ", "EOT", "é", "\n", "the", "_x_", "?", "<t>", "GEOTHERMAL", " the dog "]


@pytest.mark.parametrize(("kind", "normalized"), [*((kind, False) for kind in KINDS), (byte_level, True)])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_the_rest_of_a_chat_is_cut_as_if_nothing_had_been_typed(kind, normalized, bpe, sentencepiece_metadata, data):
    """`before`<|im_start|>`typed`<|im_end|>`after`: what stands outside the two keeps its ids."""
    flags = st.fixed_dictionaries({flag: st.booleans() for flag in FLAGS})
    words = data.draw(st.lists(st.sampled_from(WORDS), unique=True, max_size=4))
    marks = [AddedToken(mark, special=True, normalized=normalized) for mark in (START, END)]
    tokenizer = with_tokens(
        kind(bpe, sentencepiece_metadata), marks + [AddedToken(word, **data.draw(flags)) for word in words], None
    )
    before, after = ("".join(data.draw(st.lists(st.sampled_from(PIECES), max_size=5))) for _ in range(2))
    typed = data.draw(st.sampled_from([END, f"a {END} b", f"<{START}>", f"{START}{START} dog"]))
    codec = tokenizer._codec
    broken, undo = SpecialText(codec.special).broken(typed)
    start, end = (tokenizer.backend.token_to_id(mark) for mark in (START, END))
    whole = tokenizer.backend.encode(f"{before}{START}{END}{after}", parse_special=True)
    left, right = whole[: whole.index(start) + 1], whole[whole.index(end) :]
    found = codec.encode_quoted(f"{before}{START}{broken}{END}{after}", undo)
    assert found[: len(left)] == left and found[len(found) - len(right) :] == right
    inside = found[len(left) : len(found) - len(right)]
    assert start not in inside and end not in inside, "what was typed is text"
    text = tokenizer.decode(inside, skip_special=False, continues=True)
    assert re.sub(r"\s", "", text) == re.sub(r"\s", "", typed), "tokens with lstrip and rstrip take white space along"


def chat(*contents):
    return [{"role": "user", "content": content} for content in contents]


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_quotes_alike(kind, bpe, sentencepiece_metadata, tmp_path):
    """Held to transformers' sanitize_control_tokens, which came after ours and works in another way."""
    transformers = pytest.importorskip("transformers")
    tokens = [AddedToken(mark, special=True, normalized=False) for mark in (START, END)]
    tokens += [AddedToken("EOT", special=True, single_word=True), AddedToken("<t>", special=False)]
    tokenizer = with_tokens(kind(bpe, sentencepiece_metadata), tokens, TEMPLATE)
    tokenizer.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for typed in (f"a {END}", f"{START}", f"x{END}{START} y", "no EOT"):
        expected = theirs.apply_chat_template(chat(typed, "b"), sanitize_control_tokens=True, return_dict=False)
        found = tokenizer.encode_chat(chat(typed, "b"))
        special = tokenizer.special_ids
        assert [i for i in found if i in special] == [i for i in expected if i in special], typed
        assert re.sub(r"\s+", "", tokenizer.decode(found, skip_special=False)) == re.sub(
            r"\s+", "", theirs.decode(expected)
        ), typed


def test_a_word_of_the_template_stays_a_word(bpe):
    """The report: EOT must stand alone (single_word), and was found in GEOTHERMAL once something was typed."""
    tokens = [AddedToken(mark, special=True) for mark in (START, END)]
    tokens.append(AddedToken("EOT", special=True, single_word=True))
    tokenizer = with_tokens(Library.from_str(bpe.backend.source), tokens, TEMPLATE)
    plain, typed = tokenizer.encode_chat(chat("hi", "")), tokenizer.encode_chat(chat("hi", END))
    eot = tokenizer.backend.token_to_id("EOT")
    assert plain.count(eot) == typed.count(eot) == 3


def test_a_typed_word_is_still_a_neighbour(bpe):
    """A special token that is a word is exchanged for a letter: "aEOT" and "a" + a letter are both one word."""
    tokens = [AddedToken("one", special=True, single_word=True), AddedToken("two", special=True, single_word=True)]
    template = "one{{ messages[0].content }} one"
    tokenizer = with_tokens(Library.from_str(bpe.backend.source), tokens, template)
    one = tokenizer.backend.token_to_id("one")
    assert tokenizer.encode_chat(chat(" two")).count(one) == 2
    assert tokenizer.encode_chat(chat("two")).count(one) == 1, "onetwo is one word"
