"""What one id stands for, in bytes; a text is the bytes of its ids, joined and read as UTF-8.

Every tokenizer that a LLaMA uses can be decoded this way, id by id, which makes decoding a stream possible:

    byte_level      each character of a token writes one byte in an alphabet of 256 printable ones   GPT-2, Llama 3
    sentencepiece   "▁" is a space, "<0x0A>" one byte; a space at the very start is not text          Llama 2
    plain           a token is its own text                                                          char level

Bytes that are not UTF-8 read as U+FFFD, and so does an id that the vocabulary does not have (a model's embedding may be
padded beyond it). Decoders of other kinds are left to the library, which sees all ids at once.

Not here: waiting for the rest of a character (incremental.py). The byte alphabet is that of GPT-2's encoder.py.
Tests: tests/tokenizer/test_token_bytes.py.
"""

import re
from collections.abc import Iterable
from typing import Any

from nano_llama.tokenizer.backend import Backend

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_alphabet() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable Latin-1 characters stand for themselves, U+0100 onwards for the others."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if chr(byte) not in alphabet]
    return alphabet | {chr(256 + number): byte for number, byte in enumerate(others)}


BYTE_ALPHABET = byte_alphabet()


def alphabet_bytes(piece: str) -> bytes | None:
    """The bytes that a piece of byte-level BPE stands for; None where a character is not of that alphabet."""
    written = all(letter in BYTE_ALPHABET for letter in piece)
    return bytes(BYTE_ALPHABET[letter] for letter in piece) if written else None


class TokenBytes:
    """id -> bytes, computed when first asked for.

    style: "byte_level", "sentencepiece", "plain", or "library" where only the library can decode.
    strips_space: one space at the start of a text is dropped, since encoding put it there.
    """

    def __init__(self, backend: Backend):
        self.style, self.strips_space = decoding_style(backend.part("decoder"))
        self._backend = backend
        self._known: dict[int, bytes] = {}

    def __getitem__(self, token_id: int) -> bytes:
        found = self._known.get(token_id)
        if found is None:
            found = self._known[token_id] = self._compute(token_id)
        return found

    def join(self, ids: Iterable[int]) -> str:
        """The text of `ids`, the space at its start included."""
        if self.style == "library":
            return self._backend.decode(ids)
        return b"".join(map(self.__getitem__, ids)).decode(errors="replace")

    def _compute(self, token_id: int) -> bytes:
        token = self._backend.id_to_token(token_id)
        if token is None:
            return REPLACEMENT.encode()
        if self.style == "byte_level":
            written = None if token_id in self._backend.added_tokens else alphabet_bytes(token)
            return token.encode() if written is None else written
        if self.style == "sentencepiece":
            byte = BYTE_TOKEN.fullmatch(token)
            return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()
        if self.style == "plain":
            return token.encode()
        return self._backend.decode([token_id]).encode()


def decoding_style(decoder: dict[str, Any] | None) -> tuple[str, bool]:
    """How tokens become text, and whether a space at the start is dropped, from a tokenizer.json's `decoder`."""
    steps = decoder.get("decoders", []) if decoder and decoder["type"] == "Sequence" else [decoder] if decoder else []
    kinds = [step["type"] for step in steps]
    if kinds in (["ByteLevel"], ["ByteLevel", "Fuse"]):
        return "byte_level", False
    if kinds == ["Fuse"]:
        return "plain", False
    if kinds == ["Metaspace"] and steps[0]["replacement"] == "▁":
        return "sentencepiece", steps[0]["prepend_scheme"] != "never"
    if kinds in (["Replace", "ByteFallback", "Fuse"], ["Replace", "ByteFallback", "Fuse", "Strip"]):
        spaces = steps[0]["pattern"] == {"String": "▁"} and steps[0]["content"] == " "
        strip = steps[3] if len(steps) == 4 else None
        if spaces and (strip is None or (strip["content"], strip["start"], strip["stop"]) == (" ", 1, 0)):
            return "sentencepiece", strip is not None
    return "library", False
