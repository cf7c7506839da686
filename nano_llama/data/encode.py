"""Corpus text -> token ids, fast: every distinct word is encoded once, however often it occurs in the text.

The tokenizer's own `encode_batch` is the reference: same ids, several times slower, because it encodes a word again
each time it occurs. Tests: tests/data/test_encode.py.

Why the ids are the same: a byte-level BPE first cuts the text into pieces with a regular expression, then merges within
each piece alone. So a table from piece to ids, filled by the tokenizer itself, gives the same ids, provided that our
`re` splits exactly as its regular expression does. That holds for the expressions listed in `_PIECES` and for
characters that have been letters, digits or spaces since Unicode 3.2, or never were any of these; a text with another
character (assigned recently: libraries disagree on it), and every other kind of tokenizer, goes to `encode_batch`.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.data.shards import token_dtype
from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.pretokenizers import name_of

# A longer document is encoded in parts of about this many characters, to bound memory.
PART_CHARACTERS = 2**20
GROUP_CHARACTERS = 2**20
MAX_KNOWN_PIECES = 500_000  # about 100 MB per process; then the table is cleared

# texts -> the ids of each, (tokens,) of token_dtype(vocab_size)
Encoder = Callable[[Sequence[str]], list[np.ndarray]]


def make_encoder(tokenizer: Tokenizer) -> Encoder:
    """The fastest exact encoder for this tokenizer: ids without BOS or EOS, special tokens not parsed."""
    document = tokenizer.backend.document
    if tokenizer.kind == "char":  # its pieces are the characters
        return PieceEncoder(tokenizer, split=lambda text: text)
    if pattern := piece_pattern(document):
        added = [token["content"] for token in document.get("added_tokens", []) if not token.get("special")]
        return PieceEncoder(tokenizer, re.compile(pattern).findall, is_settled, added)
    return PlainEncoder(tokenizer)


def load_encoder(folder: Path) -> tuple[Encoder, Tokenizer]:
    """The encoder of the tokenizer in a dataset's folder, and that tokenizer."""
    tokenizer = Tokenizer.from_pretrained(folder / "tokenizer")
    return make_encoder(tokenizer), tokenizer


class PlainEncoder:
    """The tokenizer's own batch encoding, as arrays."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.dtype = token_dtype(tokenizer.vocab_size)

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array(ids, self.dtype) for ids in self.tokenizer.encode_batch(list(texts), add_bos=False)]


class PieceEncoder:
    """A table from piece to the bytes of its ids; a text's ids are its pieces' bytes, joined.

    `split(text)` gives the pieces. A text with a character that is not `settled`, or with one of the strings `added`
    (tokens of more than one piece), falls back to `encode_batch`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        split: Callable[[str], Iterable[str]],
        settled: Callable[[str], bool] = lambda character: True,
        added: Sequence[str] = (),
    ):
        self.plain = PlainEncoder(tokenizer)
        self.dtype = self.plain.dtype
        self.split = split
        self.settled = settled
        self.added = added
        self.known: dict[str, bytes] = {}
        self.known_characters: set[str] = {chr(code) for code in range(128)}

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [ids for group in _groups(texts) for ids in self._encode(group)]

    def _encode(self, texts: list[str]) -> list[np.ndarray]:
        cut = [list(self.split(text)) if self._can_split(text) else None for text in texts]
        self._learn([pieces for pieces in cut if pieces is not None])
        return [
            self.plain([text])[0]
            if pieces is None
            else np.frombuffer(b"".join(map(self.known.__getitem__, pieces)), self.dtype)
            for text, pieces in zip(texts, cut, strict=True)
        ]

    def _learn(self, cut: list[list[str]]) -> None:
        """Let the tokenizer encode the pieces that the table lacks."""
        if len(self.known) > MAX_KNOWN_PIECES:
            self.known.clear()
        new = set().union(*cut).difference(self.known)
        ordered = sorted(new)  # so that an error always names the same piece
        for piece, ids in zip(ordered, self.plain(ordered), strict=True):
            self.known[piece] = ids.tobytes()

    def _can_split(self, text: str) -> bool:
        if not text.isascii():
            new = set(text) - self.known_characters
            if not all(map(self.settled, new)):
                return False
            self.known_characters |= new
        return not any(token in text for token in self.added)


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in groups of GROUP_CHARACTERS: asking the tokenizer for a few pieces at a time is slow."""
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size >= GROUP_CHARACTERS:
            yield group
            group, size = [], 0
    if group:
        yield group


def cut_text(text: str, size: int = PART_CHARACTERS) -> list[str]:
    """Parts of at most `size` characters whose ids, joined, are the ids of the whole.

    The cut is made before a space between two ASCII letters: every tokenizer that splits text into words begins a new
    piece there. A stretch of `size` characters without such a place is cut at its end; that, and a tokenizer that does
    not split into words, may change a token or two at a cut.
    """
    parts, start = [], 0
    while len(text) - start > size:
        cut = start + size
        for found in _BETWEEN_WORDS.finditer(text, max(start + size // 2, start + size - 10_000), start + size):
            cut = found.start() + 1
        parts.append(text[start:cut])
        start = cut
    parts.append(text[start:])
    return parts


_BETWEEN_WORDS = re.compile("[A-Za-z] (?=[A-Za-z])")


# The splitting expressions by the names of tokenizer/pretokenizers.py, with {L} letters, {N} numbers and {S} space
# for the insides of a character class. Where each digit is a piece (smollm), they are cut out before GPT-2's
# expression is applied: space before a digit is then space at the end of a text.
_GPT2_WORDS = r"'(?:[stmd]|re|ve|ll)| ?[{L}]+| ?[^{S}{L}{N}]+|"
_LLAMA3_WORDS = r"'(?:[sStTmMdD]|[rRvV][eE]|[lL][lL])|[^\r\n{L}{N}]?[{L}]+| ?[^{S}{L}{N}]+[\r\n]*|[{S}]*[\r\n]+|"
_SPACES = r"[{S}]+(?![^{S}])|[{S}]+"
_PIECES = {
    "gpt-2": _GPT2_WORDS + r" ?[{N}]+|" + _SPACES,
    "smollm": _GPT2_WORDS + r"[{N}]|[{S}]+(?![^{S}{N}])|[{S}]+",
    "llama-bpe": _LLAMA3_WORDS + r"[{N}]{{1,3}}|" + _SPACES,
    "dbrx": _LLAMA3_WORDS + r"[{N}]{{1,3}}|" + _SPACES,
    "qwen2": _LLAMA3_WORDS + r"[{N}]|" + _SPACES,
}


def piece_pattern(document: dict[str, Any]) -> str | None:
    """The `re` pattern that splits as this tokenizer.json does, or None if there is none."""
    model = document.get("model", {})
    if document.get("normalizer") is not None or model.get("type") != "BPE":
        return None
    name = name_of(document.get("pre_tokenizer"), bool(model.get("ignore_merges")))
    return _PIECES[name].format(**_character_classes()) if name in _PIECES else None


@cache
def _character_classes() -> dict[str, str]:
    """The insides of character classes: settled letters L and numbers N up to U+FFFF, and spaces S."""
    members: dict[str, list[int]] = {"L": [], "N": []}
    for code in range(0x10000):
        kind = unicodedata.category(chr(code))[0]
        if kind in members and is_settled(chr(code)):
            members[kind].append(code)
    spaces = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    return {"L": _ranges(members["L"]), "N": _ranges(members["N"]), "S": spaces}


def is_settled(character: str) -> bool:
    """Do all libraries agree whether this is a letter, a number, or neither?

    They do where Unicode 3.2 already said so. A newer character that this Python takes for neither was never one (an
    emoji, say); one that it does not know at all may be anything.
    """
    now = unicodedata.category(character)
    if now[0] in "LN":
        # U+017F is an s where case is ignored.
        return character <= "\uffff" and unicodedata.ucd_3_2_0.category(character) != "Cn" and character != "\u017f"
    return now != "Cn"


def _ranges(codes: list[int]) -> str:
    """Ascending code points as ranges of a character class."""
    edges = [i for i in range(1, len(codes)) if codes[i] != codes[i - 1] + 1]
    runs = zip([0, *edges], [*edges, len(codes)], strict=True)
    return "".join(f"\\U{codes[a]:08x}-\\U{codes[b - 1]:08x}" for a, b in runs)
