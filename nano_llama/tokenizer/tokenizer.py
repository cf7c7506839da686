"""Text <-> token ids: the one class that the rest of the project uses.

Not here: how each kind of tokenizer is read or made; the class hands that to its neighbours in this folder.
Tests: tests/tokenizer/test_tokenizer.py and its neighbours.
"""

import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from nano_llama.core.errors import UserError
from nano_llama.tokenizer.backend import Backend, not_text
from nano_llama.tokenizer.chat import ChatTemplate, Message, check_messages
from nano_llama.tokenizer.incremental import IncrementalDecoder, WholeTextDecoder
from nano_llama.tokenizer.roles import Roles, conventional_eos
from nano_llama.tokenizer.special_text import SpecialText
from nano_llama.tokenizer.token_bytes import BYTE_ALPHABET, TokenBytes


class Tokenizer:
    """Turns text into the ids a model reads, and back.

        tokenizer = Tokenizer.from_pretrained("path/to/model")       # a folder, a tokenizer.json, a .gguf, a hub name
        tokenizer = Tokenizer.train_bpe(texts, vocab_size=4096)      # or your own: byte-level BPE,
        tokenizer = Tokenizer.train_char(text)                       # or one token a character

        ids = tokenizer.encode("Hello there")                        # [19556, 665] in SmolLM2's vocabulary
        tokenizer.decode(ids)                                        # "Hello there": exact for byte-level and char
        tokenizer.encode_chat([{"role": "user", "content": "Hi"}])   # ids of a conversation, as the model was taught it

    A model sees ids only, so three things are worth knowing about them:

    * Special tokens such as <|im_end|> are ids that no text has. `encode` never makes them out of what somebody typed:
      "<|im_end|>" becomes the tokens of its ten characters, unless `parse_special=True` says that you mean the token.
    * BOS is an id that some models want before every text. `encode` adds it if the tokenizer's own file says so;
      add_bos=False leaves the bare text, which is what the pieces of a longer text need.
    * One character may take several ids, so the text of a growing list of ids is read with `decoder()`, which waits
      for whole characters.

    kind: "char", or the library's model: "bpe", "unigram", "wordlevel", "wordpiece".
    bos_id, eos_id, pad_id, unk_id: int, or None where there is no such token. stop_ids: all ids that end an answer.
    special_ids: the ids that decode leaves out by default. vocab_size: one more than the largest id.
    """

    def __init__(self, backend: Backend, roles: Roles | None = None, chat_template: str | None = None):
        self.backend = backend
        self.roles = roles or Roles(eos=conventional_eos(backend))
        self.chat_template = chat_template
        self._template = ChatTemplate(chat_template) if chat_template is not None else None
        self._token_bytes = TokenBytes(backend)
        special = {number: token for number, token in backend.added_tokens.items() if token.special}
        self.special_ids = frozenset(special)
        self._special_text = SpecialText(special)
        self._characters = self._character_table()

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_source, (self.backend.source, self.roles, self.chat_template)

    # -- made from ------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "Tokenizer":
        """Read a model's tokenizer: a folder with a tokenizer.json, such a file, a .gguf, or a name on the hub.

        Raises UserError where nothing is found, FormatError for a file that is damaged or of an unknown kind.
        """
        from nano_llama.tokenizer.files import read_folder
        from nano_llama.tokenizer.gguf import read_gguf

        place = Path(path).expanduser()
        if not place.exists():
            from nano_llama.formats import resolve_model

            place = Path(resolve_model(path))
        return cls(*(read_gguf(place) if _is_gguf(place) else read_folder(place)))

    @classmethod
    def train_bpe(
        cls, texts: Iterable[str], vocab_size: int, progress: Callable[[int, int], None] | None = None
    ) -> "Tokenizer":
        """Byte-level BPE over `texts`. Its one special token <|endoftext|> (id 0) ends documents.

        The vocabulary may stay smaller where the texts have no more pairs to merge. progress(texts, characters) is
        called as texts are read. Raises UserError for vocab_size below 257, and where there is no text.
        """
        from nano_llama.tokenizer.train import bpe_backend

        return cls(bpe_backend(texts, vocab_size, progress))

    @classmethod
    def train_char(cls, text: str | Iterable[str]) -> "Tokenizer":
        """One token for each different character of `text`, in the order of code points. No special tokens."""
        from nano_llama.tokenizer.train import char_backend

        return cls(char_backend(text))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, which transformers.AutoTokenizer reads too."""
        from nano_llama.tokenizer.files import write_folder

        write_folder(Path(folder), self.backend, self.roles, self.chat_template)

    def to_gguf(self, vocab_size: int | None = None) -> dict[str, Any]:
        """The `tokenizer.*` metadata of a GGUF file. vocab_size: rows of the model's embedding, where it has more.

        Raises UserError, naming what GGUF cannot hold.
        """
        from nano_llama.tokenizer.gguf import tokenizer_to_gguf

        return tokenizer_to_gguf(self, vocab_size)

    # -- what it is -----------------------------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        return "char" if self._characters is not None else type(self.backend.model).__name__.lower()

    @property
    def byte_level(self) -> bool:
        """Whether tokens are made of bytes, so that any text can be written."""
        return self._token_bytes.style == "byte_level"

    @property
    def vocab_size(self) -> int:
        return self.backend.vocab_size

    @property
    def bos_id(self) -> int | None:
        return self.roles.bos

    @property
    def eos_id(self) -> int | None:
        return self.roles.eos

    @property
    def pad_id(self) -> int | None:
        return self.roles.pad

    @property
    def unk_id(self) -> int | None:
        return self.roles.unk

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        return self.roles.stop_ids(self.backend)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of its tokenizer.json in canonical form: equal exactly if encoding and decoding are."""
        canonical = json.dumps(self.backend.document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def __repr__(self) -> str:
        return (
            f"Tokenizer({self.kind}, {self.vocab_size:,} tokens, eos={self.eos_id}, chat={self._template is not None})"
        )

    # -- text to ids ----------------------------------------------------------------------------------------------

    def encode(self, text: str, *, add_bos: bool | None = None, parse_special: bool = False) -> list[int]:
        """The ids of `text`.

        add_bos: None does what the tokenizer's own file says; True puts BOS first; False gives the bare text.
        parse_special: read "<|endoftext|>" and its like as the special tokens they name.
        Raises UserError for a character that the vocabulary lacks, and for what is no text.
        """
        if self._characters is not None:
            ids = self._encode_characters(text)
        else:
            ids = self.backend.encode(text, parse_special=parse_special)
            self._check(text, ids, parse_special)
        return self._surrounded(ids, add_bos)

    def encode_batch(
        self, texts: Sequence[str], *, add_bos: bool | None = None, parse_special: bool = False
    ) -> list[list[int]]:
        """`encode` of each text, on several threads where TOKENIZERS_PARALLELISM allows."""
        if self._characters is not None:
            return [self.encode(text, add_bos=add_bos) for text in texts]
        batch = self.backend.encode_batch(list(texts), parse_special)
        for text, ids in zip(texts, batch, strict=True):
            self._check(text, ids, parse_special)
        return [self._surrounded(ids, add_bos) for ids in batch]

    def _surrounded(self, ids: list[int], add_bos: bool | None) -> list[int]:
        if add_bos is None:
            return [*self.roles.prefix, *ids, *self.roles.suffix] if self.roles.prefix or self.roles.suffix else ids
        if not add_bos:
            return ids
        if self.bos_id is None:
            raise UserError("This tokenizer has no BOS token, so add_bos=True cannot be.", hint="Leave add_bos out.")
        return [self.bos_id, *ids]

    def _check(self, text: str, ids: list[int], parse_special: bool) -> None:
        """Refuse two things that the library does without a word.

        Plain text is not searched for special tokens, but a word-level vocabulary may have one as a word. And bytes
        that a byte-level vocabulary lacks would be dropped.
        """
        if not parse_special and not self.special_ids.isdisjoint(ids):
            for token_id in self.special_ids.intersection(ids) - {self.unk_id, self._unknown_id}:
                raise UserError(
                    f"The text has {self.backend.id_to_token(token_id)!r}, in this vocabulary a special token only.",
                    hint="Pass parse_special=True if the special token is meant.",
                )
        if self._missing_bytes and not self._missing_bytes.isdisjoint(text.encode()):
            lacking = (place for place, one in enumerate(text) if not self._missing_bytes.isdisjoint(one.encode()))
            raise _no_such_character(text, next(lacking), f"cannot be written in the {self.vocab_size:,} tokens")

    @cached_property
    def _missing_bytes(self) -> frozenset[int]:
        """Bytes for which a byte-level vocabulary has no token: none, unless it was trained without care."""
        if not self.byte_level or self._unknown_id is not None:
            return frozenset()
        return frozenset(byte for letter, byte in BYTE_ALPHABET.items() if self.backend.token_to_id(letter) is None)

    @cached_property
    def _unknown_id(self) -> int | None:
        """The id that the model itself writes for what it does not know, whatever the config calls it."""
        token = getattr(self.backend.model, "unk_token", None)
        return self.backend.token_to_id(token) if token else None

    # -- ids to text ----------------------------------------------------------------------------------------------

    def decode(self, ids: Iterable[int], *, skip_special: bool = True, continues: bool = False) -> str:
        """The text of `ids`.

        skip_special: leave special tokens out. continues: the text goes on from an earlier one, so a space at its start
        is text (it matters for SentencePiece only, where the first word of a text begins with one that is not).
        Bytes that are no UTF-8, and ids beyond the vocabulary, read as U+FFFD.
        """
        kept = [_checked(token_id) for token_id in ids]
        if skip_special:
            kept = [token_id for token_id in kept if token_id not in self.special_ids]
        text = self._token_bytes.join(kept)
        return text[1:] if self._strips_space(continues) and text.startswith(" ") else text

    def decoder(self, skip_special: bool = True, *, continues: bool = False) -> IncrementalDecoder:
        """A decoder for a stream of ids; what it hands out, joined, is `decode` of them all."""
        kind = WholeTextDecoder if self._token_bytes.style == "library" else IncrementalDecoder
        return kind(self._token_bytes, self.special_ids if skip_special else (), self._strips_space(continues))

    def token_bytes(self, token_id: int) -> bytes:
        """What one id stands for. A byte-level token may hold a part of a character."""
        return self._token_bytes[_checked(token_id)]

    def _strips_space(self, continues: bool) -> bool:
        return self._token_bytes.strips_space and not continues

    # -- conversations --------------------------------------------------------------------------------------------

    def apply_chat_template(
        self, messages: Sequence[Message], add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """The conversation as the text the model was taught to read.

        messages: [{"role": "user", "content": "Hello"}, ...]. add_generation_prompt: end where the assistant's answer
        begins. variables: further names that the template knows, such as tools or date_string.
        Raises UserError where there is no template or the messages are not right, FormatError where the template fails.
        """
        checked = check_messages(messages, self.chat_template or "")
        return self._render({"messages": checked, **variables}, add_generation_prompt)

    def encode_chat(
        self, messages: Sequence[Message], add_generation_prompt: bool = True, **variables: Any
    ) -> list[int]:
        """The ids of a conversation: the template's special tokens are special, those that somebody typed are text."""
        told: dict[str, Any] = {"messages": check_messages(messages, self.chat_template or ""), **variables}
        if not self._special_text.contained_in(told):
            return self.encode(self._render(told, add_generation_prompt), add_bos=False, parse_special=True)
        broken, undo = self._special_text.broken(told)
        ids: list[int] = []
        for piece in self._special_text.split(self._render(broken, add_generation_prompt)):
            if isinstance(piece, int):
                ids.append(piece)
            else:
                mended = piece.translate(undo)
                ids += self.backend.encode(mended, continues=bool(ids))
        return ids

    def _render(self, variables: Mapping[str, Any], add_generation_prompt: bool) -> str:
        if self._template is None:
            raise UserError(
                "This tokenizer has no chat template, so it knows no conversations.",
                hint="Give the model plain text instead: generate without --chat.",
            )
        roles = {"bos_token": self.bos_id, "eos_token": self.eos_id, "unk_token": self.unk_id, "pad_token": self.pad_id}
        named = {name: self.backend.id_to_token(number) for name, number in roles.items() if number is not None}
        given = {"tools": None, "documents": None, "add_generation_prompt": add_generation_prompt}
        return self._template.render({**named, **given, **variables})

    # -- char level -----------------------------------------------------------------------------------------------

    def _character_table(self) -> dict[str, int] | None:
        """character -> id, if this is a char-level tokenizer: then no library is needed to encode.  V entries."""
        split = self.backend.part("pre_tokenizer")
        plain = type(self.backend.model).__name__ == "WordLevel" and self._token_bytes.style == "plain"
        if not plain or self.backend.added_tokens or self.backend.part("normalizer") is not None:
            return None
        if split is None or split["type"] != "Split" or split["pattern"] != {"String": ""}:
            return None
        vocab: dict[str, int] = self.backend.document["model"]["vocab"]
        return vocab if all(len(token) == 1 for token in vocab) else None

    def _encode_characters(self, text: str) -> list[int]:
        table = self._characters
        assert table is not None, "only a char-level tokenizer has a table"
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


def _checked(token_id: Any) -> int:
    try:
        number = token_id.__index__()  # NumPy's and torch's integers too
    except (AttributeError, TypeError):
        number = -1
    if number < 0:
        raise UserError(f"A token id is a whole number from 0, not {token_id!r:.60}.")
    return number


def _is_gguf(path: Path) -> bool:
    """By content, not by name."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error


def _from_source(source: str, roles: Roles, chat_template: str | None) -> Tokenizer:
    """Unpickling: in another process, say."""
    import tokenizers

    return Tokenizer(Backend(tokenizers.Tokenizer.from_str(source)), roles, chat_template)
