"""Wherever tokens cut a text, its pieces join to the text, and none of them holds a replacement character."""

from nano_llama.tokenizer.incremental import IncrementalDecoder

TEXT = "ďábel, 漢字, naïve 🙂!"


def streamed(pieces):
    """The pieces of bytes are tokens 0, 1, 2, ..."""
    decoder = IncrementalDecoder(pieces)
    return [*(decoder.push(token) for token in range(len(pieces))), decoder.finish()]


def test_every_cut_in_two_and_in_three():
    data = TEXT.encode()
    cuts = range(len(data) + 1)
    for first in cuts:
        for second in (first, min(first + 1, len(data)), min(first + 2, len(data))):
            pieces = [data[:first], data[first:second], data[second:]]
            texts = streamed(pieces)
            assert "".join(texts) == TEXT, f"cut at bytes {first} and {second}, the text becomes {''.join(texts)!r}"


def test_byte_by_byte():
    assert "".join(streamed([bytes([byte]) for byte in TEXT.encode()])) == TEXT


def test_a_text_that_ends_within_a_character():
    assert "".join(streamed([b"a", "漢".encode()[:2]])) == "a\ufffd", "a character without its end shows as one mark"
