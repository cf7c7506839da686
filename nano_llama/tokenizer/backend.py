"""The `tokenizers` library without its surprises: one object that encodes, decodes and never panics.

Four of its habits would surprise our users. Special tokens are looked for in every text: here a text is only text
unless special tokens are asked for. A file may ask for padding, truncation or dropout: an encoding here is a function
of the text alone. A fault inside Rust arrives as a `PanicException`, which no `except Exception` catches: here it is a
FormatError. And while it encodes a text, it stops all threads of Python: here a long text stops its own only.

Tests: tests/tokenizer/test_tokenizer.py, test_hostile.py.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import tokenizers
from tokenizers import processors

from nano_llama.core.errors import FormatError, UserError

LONG = 2_000  # characters, 2 ms; encode_batch also has a price, threads of its own


@contextmanager
def rust_errors(doing: str) -> Iterator[None]:
    """Turn the library's errors and panics into a FormatError that says what was being done."""
    try:
        yield
    except BaseException as error:
        if type(error) is Exception or type(error).__name__ == "PanicException":
            raise FormatError(
                f"{doing} failed in the tokenizers library: {error}.", hint="Its tokenizer.json may be damaged."
            ) from None
        raise


def encoding(library: tokenizers.Tokenizer, text: str) -> tokenizers.Encoding:
    """Ids and offsets of one text. The library's `encode` stops all threads of Python, for a long text for seconds:
    its encode_batch does not."""
    if isinstance(text, str) and len(text) > LONG:
        return library.encode_batch([text], add_special_tokens=False)[0]
    return library.encode(text, add_special_tokens=False)


class Backend:
    """A `tokenizers.Tokenizer` that reads text as plain text, with copies over the same vocabulary for other readings.

    Safe to use from several threads: nothing changes after it has been set up.
    """

    def __init__(self, library: tokenizers.Tokenizer):
        library.no_padding()
        library.no_truncation()
        if getattr(library.model, "dropout", None) is not None:
            library.model.dropout = None  # BPE-dropout is a way to train: encoding is deterministic
        library.encode_special_tokens = True  # "encode" them as any other text, that is: do not look for them
        self._plain = library

    @cached_property
    def parsing(self) -> tokenizers.Tokenizer:
        """The same tokenizer, looking for special tokens."""
        return self.copy()

    def copy(self, added_tokens: bool = True) -> tokenizers.Tokenizer:
        """A copy that shares the model, so it costs next to nothing. Without added tokens it looks for none.

        It has no post-processor, which would only change offsets: ids before and after a text are put there elsewhere.
        """
        copy = tokenizers.Tokenizer(self._plain.model)
        for part in ("normalizer", "pre_tokenizer", "decoder"):
            value = getattr(self._plain, part)
            if value is not None:
                setattr(copy, part, value)
        if added_tokens:
            for _, token in sorted(self._plain.get_added_tokens_decoder().items()):
                (copy.add_special_tokens if token.special else copy.add_tokens)([token])
            assert copy.get_added_tokens_decoder() == self._plain.get_added_tokens_decoder(), (
                "the copy numbers its tokens differently"
            )
        return copy

    # -- setting it up, before it is used -----------------------------------------------------------------------------

    def add_tokens(self, tokens: Sequence[tokenizers.AddedToken]) -> None:
        """Add tokens, special ones among them. One that the vocabulary has already keeps its id."""
        if tokens:
            self._plain.add_tokens(list(tokens))
            for name in ("added_tokens", "vocab_size"):
                self.__dict__.pop(name, None)

    def set_affixes(self, bos: int | None, eos: int | None) -> None:
        """Make tokenizer.json put these ids around a text."""
        before, after = ([] if number is None else [str(self.id_to_token(number))] for number in (bos, eos))
        text = {"Sequence": {"id": "A", "type_id": 0}}
        specials = [[{"SpecialToken": {"id": token, "type_id": 0}} for token in tokens] for tokens in (before, after)]
        known = {token: {"id": token, "ids": [self.token_to_id(token)], "tokens": [token]} for token in before + after}
        single = [*specials[0], text, *specials[1]]
        pair = [*specials[0], text, {"Sequence": {"id": "B", "type_id": 1}}, *specials[1]]
        template = {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": known}
        processor = processors.TemplateProcessing(single="$A", special_tokens=[])
        processor.__setstate__(json.dumps(template).encode())  # its constructor does not take every token's name
        self._plain.post_processor = processor

    # -- contents -----------------------------------------------------------------------------------------------------

    @cached_property
    def document(self) -> dict[str, Any]:
        """Its tokenizer.json, parsed. The vocabulary makes this large; `part` gives the small ones."""
        return json.loads(self.source)

    @property
    def source(self) -> str:
        """Its tokenizer.json."""
        return self._plain.to_str()

    def part(self, name: str) -> dict[str, Any] | None:
        """Its normalizer, pre_tokenizer, post_processor or decoder, as in tokenizer.json; None where it has none."""
        part = getattr(self._plain, name)
        return None if part is None else json.loads(part.__getstate__())  # what pickling writes is that JSON

    @property
    def normalizer(self) -> Any:
        """The library's normalizer, or None."""
        return self._plain.normalizer

    @property
    def model(self) -> Any:
        """The library's model: its type's name is the kind (BPE, WordLevel ...)."""
        return self._plain.model

    @cached_property
    def added_tokens(self) -> dict[int, tokenizers.AddedToken]:
        """Tokens outside the model: id -> token. Those with `.special` are special tokens."""
        return self._plain.get_added_tokens_decoder()

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id: the number of rows that an embedding needs."""
        return 1 + max(self._plain.get_vocab(with_added_tokens=True).values(), default=-1)

    def id_to_token(self, token_id: int) -> str | None:
        """None for an id that the vocabulary does not have, however large."""
        return self._plain.id_to_token(token_id) if 0 <= token_id < 2**32 else None

    def token_to_id(self, token: str) -> int | None:
        return self._plain.token_to_id(token)

    # -- encoding and decoding ----------------------------------------------------------------------------------------

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        """The ids of `text`, without BOS or EOS."""
        library = self.parsing if parse_special else self._plain
        with rust_errors("Encoding"):
            try:
                return encoding(library, text).ids
            except TypeError:
                raise not_text(text) from None

    def encode_batch(self, texts: Sequence[str], parse_special: bool = False) -> list[list[int]]:
        """Many texts at once, on several threads, without the offsets."""
        library = self.parsing if parse_special else self._plain
        with rust_errors("Encoding"):
            try:
                return [found.ids for found in library.encode_batch_fast(texts, add_special_tokens=False)]
            except TypeError:
                raise next((not_text(text) for text in texts if not _is_text(text)), not_text(texts)) from None

    def decode(self, ids: Iterable[int]) -> str:
        """The library's own decoding, special tokens included."""
        with rust_errors("Decoding"):
            return self._plain.decode(list(ids), skip_special_tokens=False)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and first_surrogate(value) is None


def first_surrogate(text: str) -> int | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def refuse_single(texts: Any, method: str) -> None:
    """Raise UserError for a string where an iterable of texts is meant: each of its letters would be a text."""
    if isinstance(texts, str):
        raise UserError(f"{method} takes several texts, such as [text], not a single one: each letter would be a text.")


def not_text(value: Any) -> UserError:
    """Why the library does not accept `value` as text."""
    if not isinstance(value, str):
        return UserError(f"A text was expected, not {type(value).__name__}: {value!r:.80}.")
    position = first_surrogate(value) or 0
    return UserError(
        f"The text has half a surrogate pair, U+{ord(value[position]):04X}, at position {position}: no character.",
        hint="Read the file as UTF-8 with errors='replace', or remove it.",
    )
