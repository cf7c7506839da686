"""Streams: what comes out is final, never half a character, and joined it is decode(ids)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers

from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.backend import Backend
from nano_llama.tokenizer.gguf import from_metadata

from .conftest import HARD_TEXTS


@pytest.fixture(scope="module")
def kinds(bpe, char, sentencepiece_metadata) -> dict[str, Tokenizer]:
    word_pieces = Library(
        models.WordPiece({"[UNK]": 0, "he": 1, "##llo": 2, "you": 3, "##,": 4, "é": 5}, unk_token="[UNK]")
    )
    word_pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    word_pieces.decoder = decoders.WordPiece()
    spaced = Library(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    return {
        "bpe": bpe,
        "char": char,
        "sentencepiece": Tokenizer(*from_metadata(sentencepiece_metadata)),
        "wordpiece": Tokenizer(Backend(word_pieces)),
        "no decoder": Tokenizer(Backend(spaced)),
    }


@settings(max_examples=150, deadline=None)
@given(data=st.data(), skip_special=st.booleans(), continues=st.booleans())
@pytest.mark.parametrize("kind", ["bpe", "char", "sentencepiece", "wordpiece", "no decoder"])
def test_any_ids_stream_to_what_decode_says(kinds, kind, data, skip_special, continues):
    tokenizer = kinds[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size), max_size=25))  # one id beyond the vocabulary, too
    decoder = tokenizer.decoder(skip_special, continues=continues)
    streamed = "".join(map(decoder.push, ids)) + decoder.finish()
    assert streamed == tokenizer.decode(ids, skip_special=skip_special, continues=continues)
    assert "".join(map(decoder.push, ids)) + decoder.finish() == streamed, "as new after finish"


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece"])
@pytest.mark.parametrize("text", [text for text in HARD_TEXTS if "\ufffd" not in text and "▁" not in text])
def test_no_piece_of_a_sound_text_is_half_a_character(kinds, kind, text):
    tokenizer = kinds[kind]
    decoder = tokenizer.decoder()
    pieces = [decoder.push(token) for token in tokenizer.encode(text)]
    assert not any("\ufffd" in piece for piece in pieces)
    assert decoder.finish() == ""
    assert "".join(pieces) == text


def test_a_character_comes_out_with_its_last_byte(bpe):
    decoder = bpe.decoder()
    byte_ids = {bpe.token_bytes(number): number for number in range(1, 257)}
    pieces = [decoder.push(byte_ids[bytes([byte])]) for byte in "a🙂é".encode()]
    assert pieces == ["a", "", "", "", "🙂", "", "é"]


def test_an_unfinished_character_shows_at_the_end_only(bpe):
    byte_ids = {bpe.token_bytes(number): number for number in range(1, 257)}
    decoder = bpe.decoder()
    assert [decoder.push(byte_ids[bytes([byte])]) for byte in "🙂".encode()[:3]] == ["", "", ""]
    assert decoder.finish() == "\ufffd"


def test_special_tokens_do_not_disturb_a_character(bpe):
    """A special token between the bytes of one character is left out, as decode leaves it out."""
    byte_ids = {bpe.token_bytes(number): number for number in range(1, 257)}
    first, second = "é".encode()
    decoder = bpe.decoder()
    ids = [byte_ids[bytes([first])], 0, byte_ids[bytes([second])]]
    assert [decoder.push(token) for token in ids] == ["", "", "é"]
