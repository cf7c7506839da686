"""Decoding a stream: ids go in one by one, characters come out as soon as they are complete.

A character of UTF-8 takes up to four bytes, and a byte-level token may end in the middle of one. The decoder holds
such a part back until the rest arrives, so its outputs are final: joined, they are `Tokenizer.decode(ids)`.

Tests: tests/tokenizer/test_incremental.py.
"""

import codecs
from collections.abc import Container

from nano_llama.tokenizer.token_bytes import REPLACEMENT, TokenBytes


class IncrementalDecoder:
    """`push(id)` returns the text that became certain (often one token's, sometimes none); `finish()` the rest.

        decoder = tokenizer.decoder()
        for token in ids:
            print(decoder.push(token), end="", flush=True)
        print(decoder.finish())

    After `finish` it can be used again.
    """

    def __init__(self, token_bytes: TokenBytes, skip: Container[int] = (), strips_space: bool = False):
        self._bytes = token_bytes
        self._skip = skip
        self._strips_space = strips_space
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at_start = True

    def push(self, token_id: int) -> str:
        if token_id in self._skip:
            return ""
        return self._after_start(self._utf8.decode(self._bytes[token_id]))

    def finish(self) -> str:
        """The replacement character if the last character is incomplete, or nothing."""
        rest = self._after_start(self._utf8.decode(b"", final=True))
        self._utf8.reset()
        self._at_start = True
        return rest

    def _after_start(self, text: str) -> str:
        if self._at_start and text:
            self._at_start = False
            return text[1:] if self._strips_space and text[0] == " " else text
        return text


class WholeTextDecoder(IncrementalDecoder):
    """For tokenizers that only the library can decode, from all ids at once: decode again, return what is new.

    Text that may still change (an unfinished character) waits. The time is quadratic in the length.
    """

    def __init__(self, token_bytes: TokenBytes, skip: Container[int] = (), strips_space: bool = False):
        super().__init__(token_bytes, skip, strips_space)
        self._ids: list[int] = []
        self._text = ""

    def push(self, token_id: int) -> str:
        if token_id not in self._skip:
            self._ids.append(token_id)
        return self._advance(self._bytes.join(self._ids).rstrip(REPLACEMENT))

    def finish(self) -> str:
        rest = self._advance(self._bytes.join(self._ids))
        self._ids, self._text = [], ""
        return rest

    def _advance(self, text: str) -> str:
        if not text.startswith(self._text):
            return ""
        new, self._text = text[len(self._text) :], text
        return new
