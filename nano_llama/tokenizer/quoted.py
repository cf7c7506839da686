"""Encoding a text in which some special tokens are quoted: they were typed by a user, and mean their characters.

special_text.py has broken them. The added tokens that are still found are meant, and they are found by the library
itself, with all its rules (single_word, lstrip, rstrip, normalized). A finder says where: a copy of the tokenizer whose
model has one token. What stands between two of them and holds nothing quoted keeps the ids that the library gave it;
the rest is put together again and encoded as text, in which no added token is looked for.

Not here: breaking (special_text.py). Tests: tests/tokenizer/test_quoted.py.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from nano_llama.tokenizer.backend import Backend, encoding, rust_errors

_OTHER = "\0"  # the one token of the finder's model


class QuotedEncoder:
    """Encodes what SpecialText has broken, over one backend."""

    def __init__(self, backend: Backend):
        self._backend = backend

    def pieces(self, text: str, undo: Mapping[int, str]) -> Iterator[tuple[list[int], str | None]]:
        """Ids in order: of an added token, or of what stands between two, with its text where it was quoted."""
        with rust_errors("Encoding"):
            found = encoding(self._finder, text)
            whole = encoding(self._backend.parsing, text)
        tokens = list(zip(whole.ids, whole.offsets, strict=True))
        added = [
            (self._numbers[place], span)
            for place, span in zip(found.ids, found.offsets, strict=True)
            if place in self._numbers
        ]
        first, position, normalized = 0, 0, False  # of the tokens, of the text, of the added token before
        for number, span in added:
            last = tokens.index((number, span), first)
            yield self._between(text[position : span[0]], undo, whole.ids[first:last], position > 0, normalized)
            yield [number], None
            first, position, normalized = last + 1, span[1], self._backend.added_tokens[number].normalized
        yield self._between(text[position:], undo, whole.ids[first:], position > 0, normalized)

    def _between(
        self, text: str, undo: Mapping[int, str], ids: list[int], goes_on: bool, normalized: bool
    ) -> tuple[list[int], str | None]:
        """ids: where nothing is quoted. goes_on: an added token stands before; normalized: found in normalized text."""
        restored = text.translate(undo)
        if restored == text:
            return ids, None
        library = self._after_normalized if normalized else self._after if goes_on else self._first
        with rust_errors("Encoding"):
            return encoding(library, restored).ids, restored

    @cached_property
    def _finder(self) -> tokenizers.Tokenizer:
        finder = tokenizers.Tokenizer(models.WordLevel({_OTHER: 0}, unk_token=_OTHER))
        if self._backend.normalizer is not None:
            finder.normalizer = self._backend.normalizer
        finder.add_tokens([token for _, token in sorted(self._backend.added_tokens.items())])
        return finder

    @cached_property
    def _numbers(self) -> dict[int, int]:
        """The finder's ids of added tokens -> the backend's."""
        ids = {token.content: number for number, token in self._backend.added_tokens.items()}
        return {place: ids[token.content] for place, token in self._finder.get_added_tokens_decoder().items()}

    @cached_property
    def _first(self) -> tokenizers.Tokenizer:
        return self._backend.copy(added_tokens=False)

    @cached_property
    def _after(self) -> tokenizers.Tokenizer:
        """For text that goes on: newer SentencePiece puts a space before the first word only."""
        library = self._backend.copy(added_tokens=False)
        cut = library.pre_tokenizer
        if isinstance(cut, pre_tokenizers.Metaspace) and cut.prepend_scheme == "first":
            library.pre_tokenizer = pre_tokenizers.Metaspace(cut.replacement, prepend_scheme="never", split=cut.split)
        return library

    @cached_property
    def _after_normalized(self) -> tokenizers.Tokenizer:
        """For text after a token that is found when all is normalized: what a normalizer puts in front is there."""
        library = self._after
        step = library.normalizer
        nested = isinstance(step, normalizers.Sequence)
        steps: list[Any] = [step[place] for place in range(len(step))] if nested else [step] if step is not None else []
        kept = [step for step in steps if not isinstance(step, normalizers.Prepend)]
        if len(kept) < len(steps):
            library = self._backend.copy(added_tokens=False)
            library.pre_tokenizer = self._after.pre_tokenizer
            library.normalizer = normalizers.Sequence(kept)
        return library
