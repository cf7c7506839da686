"""Token ids to text, incrementally: never half a character, never part of a stop string.

Not here: which bytes a token stands for (tokenizer), which token ids end a sequence (sequence.py).
Tests: tests/vol3/test_text.py, tests/vol3/test_stream.py.
"""

from collections import deque
from collections.abc import Sequence
from typing import Protocol


class Decoder(Protocol):
    """The incremental decoder of nano_llama.tokenizer."""

    def push(self, token: int) -> str: ...

    def finish(self) -> str: ...


class TextStream:
    """The text of one sequence as it grows.

    Text that may be the beginning of a stop string is held back until it is known not to be one; text that was
    returned is final. `text` is all that was returned. A stop string that is complete within the first `min_tokens`
    tokens does not count.

    `num_certain` counts the tokens of whose text something was returned, or of text behind theirs: a token that adds
    none of its own, as the first bytes of a character, waits for the next. So what is said of a token, its
    logprobs, never goes out before its text does, and never at all if a stop string cuts it off.
    """

    def __init__(self, decoder: Decoder, stop: Sequence[str] = (), min_tokens: int = 0):
        self.decoder = decoder
        self.stop = tuple(stop)
        self.min_tokens = min_tokens
        self.text = ""
        self.stopped_by: str | None = None  # the stop string that was found
        self.num_certain = 0
        self._held = ""
        self._begins: deque[int] = deque()  # where the texts of the later tokens begin, as characters before

    def push(self, token: int) -> str:
        """Add a token; return the text that is now certain. Check `stopped_by` afterwards."""
        self._begins.append(len(self.text) + len(self._held))
        return self._advance(self.decoder.push(token))

    def finish(self) -> str:
        """No more tokens: return what was held back (an unfinished character shows as the replacement character)."""
        if self.stopped_by is not None:
            return ""
        released = self._advance(self.decoder.finish())
        if self.stopped_by is None:
            released += self._release(self._held)
        return released

    def _advance(self, piece: str) -> str:
        known = len(self._held)
        self._held += piece
        found = [  # those that end in the new piece
            (place, stop) for stop in self.stop if (place := self._held.find(stop, max(0, known + 1 - len(stop)))) >= 0
        ]
        num_tokens = self.num_certain + len(self._begins)
        if found and num_tokens > self.min_tokens:  # the earliest in the text; at the same place the first in the list
            place, self.stopped_by = min(found, key=lambda entry: entry[0])
            released = self._release(self._held[:place])
            self._held = ""
            return released
        return self._release(self._held[: len(self._held) - self._num_held_back()])

    def _num_held_back(self) -> int:
        """How many characters may still become a stop string: the longest suffix that begins one."""
        longest = min(len(self._held), max((len(stop) - 1 for stop in self.stop), default=0))
        for length in range(longest, 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self.stop):
                return length
        return 0

    def _release(self, text: str) -> str:
        self._held = self._held[len(text) :]
        self.text += text
        while self._begins and self._begins[0] < len(self.text):
            self._begins.popleft()
            self.num_certain += 1
        return text
