"""Decoding by our own bytes, held to the library's decoders."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Library

from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.backend import Backend
from nano_llama.tokenizer.gguf import from_metadata
from nano_llama.tokenizer.token_bytes import BYTE_ALPHABET, decoding_style


def test_the_byte_alphabet_is_the_librarys():
    assert set(BYTE_ALPHABET) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(BYTE_ALPHABET.values()) == list(range(256))
    library = decoders.ByteLevel()
    for letter, byte in BYTE_ALPHABET.items():
        assert library.decode([letter]) == bytes([byte]).decode(errors="replace")


@settings(max_examples=300, deadline=None)
@given(ids=st.lists(st.integers(0, 419), max_size=30))
def test_byte_level_decoding_of_any_ids(bpe, ids):
    """Random ids make broken UTF-8 in every way; both sides must show it alike."""
    assert bpe.decode(ids, skip_special=False) == bpe.backend.decode(ids)


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet=st.sampled_from(" ab\n▁é日🙂<0x>"), max_size=30))
def test_sentencepiece_decoding_of_texts(sentencepiece_metadata, text):
    tokenizer = Tokenizer(*from_metadata(sentencepiece_metadata))
    ids = tokenizer.encode(text, add_bos=False)
    assert tokenizer.decode(ids) == tokenizer.backend.decode(ids)


def test_a_continuing_text_keeps_its_first_space(sentencepiece_metadata):
    tokenizer = Tokenizer(*from_metadata(sentencepiece_metadata))
    ids = tokenizer.encode("dog", add_bos=False)
    assert tokenizer.decode(ids) == "dog"
    assert tokenizer.decode(ids, continues=True) == " dog"


def test_added_tokens_are_their_own_text(bpe):
    """Even one whose letters would mean other bytes in the alphabet."""
    library = Library.from_str(bpe.backend.source)
    library.add_tokens([AddedToken("<naïve Ġ>", normalized=False)])
    tokenizer = Tokenizer(Backend(library))
    ids = tokenizer.encode("x<naïve Ġ>y")
    assert 420 in ids and tokenizer.decode(ids) == "x<naïve Ġ>y"


def llama2(*last) -> decoders.Decoder:
    return decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *last])


@pytest.mark.parametrize(
    ("decoder", "style"),
    [
        (None, ("library", False)),
        (decoders.ByteLevel(), ("byte_level", False)),
        (decoders.Sequence([decoders.ByteLevel()]), ("byte_level", False)),
        (decoders.Fuse(), ("plain", False)),
        (decoders.Metaspace(), ("sentencepiece", True)),
        (decoders.Metaspace(prepend_scheme="never"), ("sentencepiece", False)),
        (decoders.Metaspace(replacement="_"), ("library", False)),
        (decoders.WordPiece(), ("library", False)),
        (
            llama2(decoders.Strip(" ", 1, 0)),
            ("sentencepiece", True),
        ),
        (
            llama2(decoders.Strip(" ", 2, 0)),
            ("library", False),
        ),
        (decoders.Sequence([decoders.Replace("x", " "), decoders.ByteFallback(), decoders.Fuse()]), ("library", False)),
    ],
)
def test_styles(decoder, style):
    library = Library(models.BPE({"a": 0}, []))
    if decoder is not None:
        library.decoder = decoder
    assert decoding_style(Backend(library).part("decoder")) == style


def test_a_decoder_we_do_not_know_is_the_librarys():
    library = Library(models.WordPiece({"[UNK]": 0, "he": 1, "##llo": 2, "you": 3}, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.decoder = decoders.WordPiece()
    tokenizer = Tokenizer(Backend(library))
    assert tokenizer.kind == "wordpiece"
    assert tokenizer.decode([1, 2, 3]) == "hello you"
    assert tokenizer.token_bytes(1) == b"he"
