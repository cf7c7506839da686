"""Byte-level BPE from a vocabulary and merges that are at hand: one's own training, or GPT-2's two files.

Not here: training them (train.py), files (files.py). Tests: tests/tokenizer/test_merges.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import decoders, models

from nano_llama.core.errors import UserError
from nano_llama.tokenizer.backend import Backend, rust_errors
from nano_llama.tokenizer.pretokenizers import SMOLLM
from nano_llama.tokenizer.token_bytes import BYTE_ALPHABET

Piece = bytes | str
Vocabulary = Mapping[bytes, int] | Mapping[int, bytes] | Mapping[str, int]

_HEADER = "#version"  # how GPT-2's merges.txt begins
_LETTER_OF = {byte: letter for letter, byte in BYTE_ALPHABET.items()}


def merges_backend(
    vocab: Vocabulary, merges: Iterable[tuple[Piece, Piece] | str], special_tokens: Sequence[str] = ()
) -> Backend:
    """See Tokenizer.from_merges."""
    ids = _ids(vocab, special_tokens)
    pairs = [_pair(merge) for merge in merges if not (isinstance(merge, str) and merge.startswith(_HEADER))]
    for first, second in pairs:
        for piece in (first, second, first + second):
            if piece not in ids:
                raise UserError(f"The merge of {first!r} and {second!r}: {piece!r} is not in the vocabulary.")
    if lacking := [byte for byte, letter in _LETTER_OF.items() if letter not in ids]:
        raise UserError(
            f"The vocabulary lacks {len(lacking)} of the 256 bytes, such as {bytes(lacking[:1])!r}.",
            hint="Byte-level BPE begins with all of them, so that every text can be encoded.",
        )
    with rust_errors("Reading vocabulary and merges"):
        library = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=pairs))
        library.pre_tokenizer = SMOLLM.build()
        library.decoder = decoders.ByteLevel()
        library.add_special_tokens([tokenizers.AddedToken(text, special=True) for text in special_tokens])
    return Backend(library)


def _ids(vocab: Vocabulary, special_tokens: Sequence[str]) -> dict[str, int]:
    """{piece in the byte alphabet: id}. A special token keeps its own spelling."""
    special = {text.encode(): text for text in special_tokens}
    ids: dict[str, int] = {}
    if not isinstance(vocab, Mapping):
        raise UserError(
            f"vocab is a {type(vocab).__name__}; expected a dict of pieces and their ids.",
            hint="A list in the order of the ids:  dict(enumerate(pieces))",
        )
    for key, value in vocab.items():
        piece, number = (value, key) if isinstance(key, int) else (key, value)
        if not isinstance(piece, bytes | str) or isinstance(number, bool) or not isinstance(number, int):
            raise UserError(f"vocab: {key!r}: {value!r} is not a piece (bytes or text) with its id.")
        ids[special[piece] if isinstance(piece, bytes) and piece in special else _letters(piece)] = number
    if len(set(ids.values())) < len(vocab):
        raise UserError("vocab: two pieces have the same id, or two ids the same piece.")
    return ids


def _pair(merge: Any) -> tuple[str, str]:
    """A merge in the byte alphabet, from two pieces or a line of GPT-2's merges.txt."""
    pair = merge.split() if isinstance(merge, str) else merge
    if isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(piece, bytes | str) for piece in pair):
        return _letters(pair[0]), _letters(pair[1])
    raise UserError(f"merges: {merge!r:.80} is not a pair of pieces, such as (b'th', b'e').")


def _letters(piece: Piece) -> str:
    """Bytes in GPT-2's alphabet of 256 printable characters; text is in it already."""
    return "".join(_LETTER_OF[byte] for byte in piece) if isinstance(piece, bytes) else piece
