"""Text -> ids -> text, for one vocabulary: what Tokenizer hands encoding and decoding to.

Not here: chat templates (conversation.py), the files of a tokenizer (files.py, gguf.py).
Tests: tests/tokenizer/test_tokenizer.py.
"""

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

from nano_llama.core.errors import UserError
from nano_llama.tokenizer.backend import Backend, not_text, refuse_single
from nano_llama.tokenizer.incremental import IncrementalDecoder, WholeTextDecoder
from nano_llama.tokenizer.quoted import QuotedEncoder
from nano_llama.tokenizer.roles import Roles
from nano_llama.tokenizer.special_text import SpecialText
from nano_llama.tokenizer.token_bytes import BYTE_ALPHABET, TokenBytes


class Codec:
    """Encoding and decoding with one vocabulary. The public methods are documented at Tokenizer's of the same name.

    characters: character -> id if this is a char-level tokenizer, which needs no library to encode; else None.
    """

    def __init__(self, backend: Backend, roles: Roles):
        self.backend = backend
        self.roles = roles
        self.special = {number: token for number, token in backend.added_tokens.items() if token.special}
        self.special_ids = frozenset(self.special)
        self.token_bytes = TokenBytes(backend)
        self.characters = _character_table(backend, self.token_bytes.style)

    @property
    def byte_level(self) -> bool:
        return self.token_bytes.style == "byte_level"

    # -- text to ids --------------------------------------------------------------------------------------------------

    def encode(self, text: str, add_bos: bool | None, parse_special: bool) -> list[int]:
        if self.characters is not None:
            ids = _encode_characters(text, self.characters)
        else:
            ids = self.backend.encode(text, parse_special=parse_special)
            self._check(text, ids, parse_special)
        return self._with_affixes(ids, add_bos)

    def encode_batch(self, texts: Sequence[str], add_bos: bool | None, parse_special: bool) -> list[list[int]]:
        refuse_single(texts, "encode_batch")
        if self.characters is not None:
            return [self.encode(text, add_bos, parse_special) for text in texts]
        batch = self.backend.encode_batch(list(texts), parse_special)
        for text, ids in zip(texts, batch, strict=True):
            self._check(text, ids, parse_special)
        return [self._with_affixes(ids, add_bos) for ids in batch]

    def encode_iterable(self, texts: Iterable[str]) -> Iterator[int]:
        refuse_single(texts, "encode_iterable")
        return chain.from_iterable(self.encode(text, False, False) for text in texts)

    def encode_parsing(self, text: str, add_bos: bool | None, meant: Collection[int]) -> list[int]:
        """Of the special tokens that the text names only these are meant; the others are text."""
        others = SpecialText({number: token for number, token in self.special.items() if number not in meant})
        if not others.contained_in(text):
            return self.encode(text, add_bos, parse_special=True)
        broken, undo = others.broken(text)
        return self._with_affixes(self.encode_quoted(broken, undo), add_bos)

    def encode_quoted(self, text: str, undo: Mapping[int, str]) -> list[int]:
        """A text whose special tokens are meant, except those that SpecialText has broken: quoted.py."""
        ids: list[int] = []
        for found, quoted in self._quoted.pieces(text, undo):
            if quoted is not None:
                self._check(quoted, found, parse_special=False)
            ids += found
        return ids

    @cached_property
    def _quoted(self) -> QuotedEncoder:
        return QuotedEncoder(self.backend)

    def _with_affixes(self, ids: list[int], add_bos: bool | None) -> list[int]:
        roles = self.roles
        if add_bos is None:
            return [*roles.prefix, *ids, *roles.suffix] if roles.prefix or roles.suffix else ids
        if not add_bos:
            return ids
        if roles.bos is None:
            raise UserError("add_bos=True: this tokenizer has no BOS token.", hint="Leave add_bos out.")
        return [roles.bos, *ids]

    def _check(self, text: str, ids: list[int], parse_special: bool) -> None:
        """Refuse two things that the library does silently.

        Plain text is not searched for special tokens, but a word-level vocabulary may have one as a word. And bytes
        that a byte-level vocabulary lacks would be dropped.
        """
        if not parse_special and not self.special_ids.isdisjoint(ids):
            for token_id in self.special_ids.intersection(ids) - {self.roles.unk, self._unknown_id}:
                raise UserError(
                    f"The text has {self.backend.id_to_token(token_id)!r}, in this vocabulary a special token only.",
                    hint="Pass parse_special=True if the special token is meant.",
                )
        if self._missing_bytes and not self._missing_bytes.isdisjoint(text.encode()):
            lacking = (place for place, one in enumerate(text) if not self._missing_bytes.isdisjoint(one.encode()))
            size = self.backend.vocab_size
            raise _no_such_character(text, next(lacking), f"cannot be written in the {size:,} tokens")

    @cached_property
    def _missing_bytes(self) -> frozenset[int]:
        """Bytes for which a byte-level vocabulary has no token: none, unless it was trained carelessly."""
        if not self.byte_level or self._unknown_id is not None:
            return frozenset()
        return frozenset(byte for letter, byte in BYTE_ALPHABET.items() if self.backend.token_to_id(letter) is None)

    @cached_property
    def _unknown_id(self) -> int | None:
        """The id that the model itself writes for what it does not know, whatever the config calls it."""
        token = getattr(self.backend.model, "unk_token", None)
        return self.backend.token_to_id(token) if token else None

    # -- ids to text --------------------------------------------------------------------------------------------------

    def decode(self, ids: Iterable[int], skip_special: bool, continues: bool) -> str:
        wanted = [checked_id(token_id) for token_id in ids]
        if skip_special:
            wanted = [token_id for token_id in wanted if token_id not in self.special_ids]
        text = self.token_bytes.join(wanted)
        return text[1:] if self._strips_space(continues) and text.startswith(" ") else text

    def decoder(self, skip_special: bool, continues: bool) -> IncrementalDecoder:
        kind = WholeTextDecoder if self.token_bytes.style == "library" else IncrementalDecoder
        return kind(self.token_bytes, self.special_ids if skip_special else (), self._strips_space(continues))

    def _strips_space(self, continues: bool) -> bool:
        return self.token_bytes.strips_space and not continues


def checked_id(token_id: Any) -> int:
    try:
        number = token_id.__index__()  # NumPy's and torch's integers too
    except (AttributeError, TypeError):
        number = -1
    if number < 0:
        raise UserError(f"A token id is a whole number from 0, not {token_id!r:.60}.")
    return number


def _character_table(backend: Backend, style: str) -> dict[str, int] | None:
    """character -> id if each token is one character and nothing else is done to a text.  V entries."""
    split = backend.part("pre_tokenizer")
    plain = type(backend.model).__name__ == "WordLevel" and style == "plain"
    if not plain or backend.added_tokens or backend.part("normalizer") is not None:
        return None
    if split is None or split["type"] != "Split" or split["pattern"] != {"String": ""}:
        return None
    vocab: dict[str, int] = backend.document["model"]["vocab"]
    return vocab if all(len(token) == 1 for token in vocab) else None


def _encode_characters(text: str, table: dict[str, int]) -> list[int]:
    if not isinstance(text, str):
        raise not_text(text)
    try:
        return [table[character] for character in text]
    except KeyError:
        position = next(place for place, one in enumerate(text) if one not in table)
    raise _no_such_character(text, position, f"is not among the {len(table):,} characters")


def _no_such_character(text: str, position: int, lack: str) -> UserError:
    character = text[position]
    named = f"{character!r} (U+{ord(character):04X}, {unicodedata.name(character, 'without a name')})"
    return UserError(
        f"The character {named} at position {position} {lack} of this tokenizer.",
        hint="Train it on a text that has it, or use byte-level BPE, which writes any: --tokenizer bpe:4096.",
    )
