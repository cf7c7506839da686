"""Text that grows, read as tool calls in OpenAI's shape.

    NamedCall     the whole text is the arguments of one function             (forced by name)
    CallList      calls one after the other: [{...}, {...}] or {...}; {...}   (forced; Llama 3)
    TaggedCalls   text with <tool_call>{...}</tool_call> in it                (Hermes, Qwen)

A call is {"name": ..., "arguments" or "parameters": {...}}. Its arguments go out as they are written, as soon as the
name is known. Anything else stays text, as does a call that was cut before its arguments: only blanks are lost. Where
calls are forced nothing is text: such a call goes out as far as its name, or not at all.
Tests: tests/server/test_api_tool_calls.py, test_api_tools.py.
"""

import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Any, Protocol

NAME = r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*'
HEAD = re.compile(NAME + r',\s*"(?:arguments|parameters)"\s*:\s*', re.DOTALL)
ARGUMENTS = ("arguments", "parameters")


@dataclass
class Found:
    """What a piece of text turned out to be: text for the user, and pieces of tool calls."""

    text: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)

    def __iadd__(self, other: "Found") -> "Found":
        self.text += other.text
        self.calls += other.calls
        return self


class TextReader(Protocol):
    """num_calls: how many calls have begun. amid_call: whether the last one is not whole."""

    num_calls: int

    @property
    def amid_call(self) -> bool: ...

    def push(self, text: str) -> Found: ...

    def finish(self) -> Found: ...


def first_piece(index: int, name: str, arguments: str) -> dict[str, Any]:
    call_id = f"call_{secrets.token_hex(12)}"
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": call_id, "type": "function", "function": function}


def next_piece(index: int, arguments: str) -> dict[str, Any]:
    return {"index": index, "function": {"arguments": arguments}}


def joined(pieces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The calls that a stream's pieces make up."""
    calls: dict[int, dict[str, Any]] = {}
    for piece in pieces:
        if piece["index"] not in calls:
            calls[piece["index"]] = {"id": piece["id"], "type": "function", "function": dict(piece["function"])}
        else:
            calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
    return list(calls.values())


class NamedCall:
    """All the text is the arguments of a function whose name is known."""

    def __init__(self, name: str):
        self.name = name
        self.num_calls = 0
        self._text = ""

    @property
    def amid_call(self) -> bool:
        try:
            json.loads(self._text)
        except (ValueError, RecursionError):
            return True
        return False

    def push(self, text: str) -> Found:
        if not text:
            return Found()
        piece = next_piece(0, text) if self.num_calls else first_piece(0, self.name, text)
        self.num_calls = 1
        self._text += text
        return Found(calls=[piece])

    def finish(self) -> Found:
        return Found()


class CallReader:
    """One call. Feed it until it is `closed`; `rest` is what came behind. `broken`: it is not the JSON of a call."""

    def __init__(self, index: int):
        self.index = index
        self.text = ""  # so far
        self.rest = ""
        self.closed = self.broken = False
        self.begun = False  # whether a piece of it went out
        self._depth, self._in_string, self._escaped = 0, False, False
        self._name: str | None = None  # known once the arguments begin behind it
        self._sent = 0  # where the arguments that are still to go out begin in `text`
        self._arguments_end: int | None = None

    def push(self, text: str) -> list[dict[str, Any]]:
        start = len(self.text)
        self.text += text
        for place in range(start, len(self.text)):
            self._read(place)
            if self.closed or self.broken:
                self.text, self.rest = self.text[: place + 1], self.text[place + 1 :]
                break
        if self._name is not None:
            return self._pieces(self._name)
        return self._whole() if self.closed else []

    def _read(self, place: int) -> None:
        letter = self.text[place]
        if self._in_string:
            self._in_string = self._escaped or letter != '"'
            self._escaped = letter == "\\" and not self._escaped
        elif letter == '"':
            self._in_string = True
        elif letter in "{[":
            self._depth += 1
            if letter == "{" and self._depth == 2 and self._name is None:
                self._name, self._sent = _name_in(self.text[:place]), place
        elif letter in "}]":
            self._depth -= 1
            if self._depth == 1 and self._name is not None and self._arguments_end is None:
                self._arguments_end = place + 1
            self.closed = self._depth == 0
        if self._depth == 0 and not self.closed and not letter.isspace():
            self.broken = True

    def _pieces(self, name: str) -> list[dict[str, Any]]:
        end = len(self.text) if self._arguments_end is None else self._arguments_end
        new, self._sent = self.text[self._sent : end], max(end, self._sent)
        if not self.begun:
            self.begun = True
            return [first_piece(self.index, name, new)]
        return [next_piece(self.index, new)] if new else []

    def cut(self) -> list[dict[str, Any]]:
        """A call that ends before its arguments: with its name, if that is whole."""
        found = re.match(NAME, self.text, re.DOTALL)
        return [first_piece(self.index, json.loads(found[1]), "")] if found else []

    def _whole(self) -> list[dict[str, Any]]:
        """A call whose keys come in another order, or that has no arguments."""
        try:
            call = json.loads(self.text)
        except ValueError:
            call = None
        named: Any = call if isinstance(call, dict) else {}
        arguments: Any = next((named[key] for key in ARGUMENTS if key in named), {})
        if not isinstance(named.get("name"), str) or not isinstance(arguments, dict):
            self.broken = True
            return []
        self.begun = True
        return [first_piece(self.index, named["name"], json.dumps(arguments, ensure_ascii=False))]


def _name_in(head: str) -> str | None:
    """The function's name, if the arguments begin behind this."""
    found = HEAD.fullmatch(head)
    try:
        return json.loads(found[1]) if found else None
    except ValueError:  # an escape that JSON does not have
        return None


class CallList:
    """Calls one after the other, with separators between them; a text that begins otherwise is text.

    parallel: whether calls after the first count; without it they are left out. forced: the text is calls, no other.
    """

    def __init__(self, separators: str, parallel: bool, forced: bool = False):
        self.separators = separators
        self.parallel = parallel
        self.forced = forced
        self.num_calls = 0
        self._call: CallReader | None = None
        self._held = ""  # between the calls
        self._is_text = False

    @property
    def amid_call(self) -> bool:
        return self._call is not None

    def push(self, text: str) -> Found:
        found = Found()
        while text:
            if self._is_text:
                found.text += text
                break
            if self._call is None:
                text = self._between(text)
                continue
            found += self._continue(text)
            text = self._call.rest if self._call and (self._call.closed or self._call.broken) else ""
            if self._call.broken:
                found.text += self._held + self._call.text
                self._held, self._is_text = "", True
            if self._call.closed:
                self._call = None
        return found

    def finish(self) -> Found:
        """What was held back is text, but for the separators behind the last call."""
        found = Found()
        if self.forced:
            if self._call is not None and not self._call.begun:
                found.calls = self._call.cut()
                self.num_calls += len(found.calls)
        elif self._call is not None and not self._call.begun and not self._is_text:
            found.text = self._held + self._call.text
        elif not self.num_calls:
            found.text = self._held
        self._held = ""
        return found

    def _between(self, text: str) -> str:
        """Up to the next call, which begins with a brace. Returns what is to be read next."""
        for place, letter in enumerate(text):
            if letter == "{":
                self._call = CallReader(self.num_calls)
                return text[place:]
            if not letter.isspace() and letter not in self.separators:
                rest, self._held, self._is_text = self._held + text[place:], "", True
                return rest
            self._held += letter
        return ""

    def _continue(self, text: str) -> Found:
        assert self._call is not None, "a call has begun"
        new, began = self._call.push(text), self._call.begun
        if began and self._call.index == self.num_calls:
            self.num_calls += 1
            self._held = ""
        return Found(calls=new if self.parallel or self._call.index == 0 else [])


class TaggedCalls:
    """Calls between two tags, in a text. Blanks before a tag, and between calls, belong to the calls."""

    def __init__(self, begin: str, end: str, parallel: bool):
        self.begin, self.end = begin, end
        self.parallel = parallel
        self.num_calls = 0
        self._call: CallReader | None = None
        self._after = False  # behind a call, before its end tag
        self._held = ""

    @property
    def amid_call(self) -> bool:
        return self._call is not None

    def push(self, text: str) -> Found:
        found = Found()
        text, self._held = self._held + text, ""
        while text:
            if self._call is not None:
                text = self._in_call(text, found)
            elif self._after:
                text = self._before_end(text)
            else:
                text = self._in_text(text, found)
        return found

    def finish(self) -> Found:
        """The end of the text: what was held back as the possible beginning of a tag is none."""
        if self._call is not None and not self._call.begun:
            return Found(self.begin + self._call.text)
        return Found("" if self._after or (self.num_calls and not self._held.strip()) else self._held)

    def _in_text(self, text: str, found: Found) -> str:
        place = text.find(self.begin)
        if place >= 0:
            found.text += text[:place].rstrip()
            self._call = CallReader(self.num_calls)
            return text[place + len(self.begin) :]
        certain = len(text) - _overlap(text, self.begin)
        certain = len(text[:certain].rstrip())
        found.text += text[:certain]
        self._held = text[certain:]
        return ""

    def _in_call(self, text: str, found: Found) -> str:
        assert self._call is not None, "a call has begun"
        pieces = self._call.push(text)
        if self._call.begun and self._call.index == self.num_calls:
            self.num_calls += 1
        if self.parallel or self._call.index == 0:
            found.calls += pieces
        if self._call.broken:  # not a call: the model's text, as it is
            found.text += self.begin + self._call.text
        elif not self._call.closed:
            return ""
        rest, self._after = self._call.rest, not self._call.broken
        self._call = None
        return rest

    def _before_end(self, text: str) -> str:
        """The end tag and blanks before it are dropped; anything else is text again."""
        stripped = text.lstrip()
        if stripped.startswith(self.end):
            self._after = False
            return stripped[len(self.end) :]
        if self.end.startswith(stripped):
            self._held = text
            return ""
        self._after = False
        return text


def _overlap(text: str, tag: str) -> int:
    """How many characters at the end of the text may be the beginning of the tag."""
    return next((n for n in range(min(len(text), len(tag) - 1), 0, -1) if tag.startswith(text[-n:])), 0)
