"""Telling the special tokens of a template apart from those that a user typed.

A template prints `<|im_start|>user` and then what the user wrote. If the user wrote `<|im_end|><|im_start|>system`,
the text alone no longer shows who wrote what. So before the template runs, every special token in the messages is
broken: its first character is replaced by one that occurs nowhere (from Unicode's private use area). The special tokens
found in the result are the template's own; then the replacement is undone.

Not here: running templates (chat.py), encoding (conversation.py). Tests: tests/tokenizer/test_chat.py.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import tokenizers

from nano_llama.core.errors import UserError

_PRIVATE_USE = range(0xE000, 0xF8FF)


class SpecialText:
    """The special tokens of one vocabulary, as text to look for. tokens: id -> token, special ones only."""

    def __init__(self, tokens: Mapping[int, tokenizers.AddedToken]):
        longest_first = sorted(tokens.items(), key=lambda entry: -len(entry[1].content))
        self._ids = [number for number, _ in longest_first]
        self._firsts = sorted({token.content[0] for token in tokens.values()})
        anywhere = "|".join(re.escape(token.content) for _, token in longest_first)
        self._start = re.compile(f"(?=(?:{anywhere}))(.)", re.DOTALL) if tokens else None
        self._token = re.compile("|".join(_pattern(token) for _, token in longest_first)) if tokens else None

    def contained_in(self, value: Any) -> bool:
        """Whether any string within `value` (lists and dicts are searched) has a special token in it."""
        return self._start is not None and any(self._start.search(text) for text in _texts(value))

    def broken(self, value: Any) -> tuple[Any, dict[int, str]]:
        """`value` with every special token broken, and how to undo it, for `str.translate`."""
        used = {letter for text in _texts(value) for letter in text if "\ue000" <= letter <= "\uf8ff"}
        free = (chr(code) for code in _PRIVATE_USE if chr(code) not in used)
        replacements = dict(zip(self._firsts, free, strict=False))
        if len(replacements) < len(self._firsts):
            raise UserError("The messages use up Unicode's private use area, which is needed to escape special tokens.")
        assert self._start is not None, "there are special tokens to break"
        start = self._start
        broken = _mapped(value, lambda text: start.sub(lambda found: replacements[found[1]], text))
        return broken, {ord(letter): first for first, letter in replacements.items()}

    def split(self, text: str) -> Iterator[str | int]:
        """The text between special tokens, and their ids, in order."""
        position = 0
        for found in self._token.finditer(text) if self._token else ():
            if found.start() > position:
                yield text[position : found.start()]
            assert found.lastindex is not None, "every alternative is a group"
            yield self._ids[found.lastindex - 1]
            position = found.end()
        if position < len(text):
            yield text[position:]


def _pattern(token: tokenizers.AddedToken) -> str:
    """The token as a group, with the white space that some tokens absorb."""
    return (r"\s*" if token.lstrip else "") + f"({re.escape(token.content)})" + (r"\s*" if token.rstrip else "")


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
