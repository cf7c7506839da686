"""Telling the special tokens of a template apart from those that a user typed.

A template prints `<|im_start|>user` and then what the user wrote. If the user wrote `<|im_end|><|im_start|>system`,
the text alone no longer shows who wrote what. So before the template runs, every special token in the messages is
broken: its first character is replaced by one that occurs nowhere. The special tokens found in the result are the
template's own; then the replacement is undone.

A letter is replaced by a letter, another character by one from Unicode's private use area: tokens that must stand
apart as words (single_word) look at their neighbours.

Not here: running templates (chat.py), encoding what was broken (quoted.py). Tests: tests/tokenizer/test_chat.py.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import tokenizers

from nano_llama.core.errors import UserError

_PRIVATE_USE = range(0xE000, 0xF8FF)
_RARE_LETTERS = range(0x14400, 0x14647)  # Anatolian hieroglyphs


class SpecialText:
    """The special tokens of one vocabulary, as text to look for. tokens: id -> token, special ones only."""

    def __init__(self, tokens: Mapping[int, tokenizers.AddedToken]):
        self._firsts = sorted({token.content[0] for token in tokens.values()})
        anywhere = "|".join(re.escape(token.content) for token in tokens.values())
        self._start = re.compile(f"(?=(?:{anywhere}))(.)", re.DOTALL) if tokens else None

    def contained_in(self, value: Any) -> bool:
        """Whether any string within `value` (lists and dicts are searched) has a special token in it."""
        return self._start is not None and any(self._start.search(text) for text in _texts(value))

    def broken(self, value: Any) -> tuple[Any, dict[int, str]]:
        """`value` with every special token broken, and how to undo it, for `str.translate`."""
        used = {letter for text in _texts(value) for letter in text if letter >= "\ue000"}
        replacements: dict[str, str] = {}
        for pool, kind in ((_RARE_LETTERS, True), (_PRIVATE_USE, False)):
            free = (chr(code) for code in pool if chr(code) not in used)
            replacements |= dict(zip((first for first in self._firsts if _in_word(first) is kind), free, strict=False))
        if len(replacements) < len(self._firsts):
            raise UserError("The messages use up the rare characters that are needed to escape special tokens.")
        assert self._start is not None, "there are special tokens to break"
        start = self._start
        broken = _mapped(value, lambda text: start.sub(lambda found: replacements[found[1]], text))
        return broken, {ord(letter): first for first, letter in replacements.items()}


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_mapped(key, change): _mapped(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(item, change) for item in value]
    return value
