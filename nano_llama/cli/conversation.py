"""A conversation as data: turns, a system prompt, and the rules for editing, repeating and dropping turns.

Tests: tests/cli/test_conversation.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nano_llama.core.errors import UserError

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Picture:
    """A file as it was when it was shown: later it may be another."""

    path: Path
    read: Any  # what the model's images.read made of it


@dataclass
class Turn:
    """A user message, with pictures before it, and its answer; None while there is no answer yet."""

    question: str
    answer: str | None = None
    pictures: Sequence[Picture] = ()

    def content(self, paths: bool) -> Any:
        """A text, or parts where there are pictures."""
        if not self.pictures:
            return self.question
        parts = [{"type": "image", "image": str(one.path) if paths else one.read} for one in self.pictures]
        return [*parts, {"type": "text", "text": self.question}]


@dataclass
class Conversation:
    """The turns so far. Only the last one may be without an answer. attached: pictures of the next message."""

    system: str | None = None
    turns: list[Turn] = field(default_factory=list)
    attached: list[Picture] = field(default_factory=list)

    def messages(self, paths: bool = False) -> Messages:
        """As LLM.chat takes them, with roles system, user and assistant. paths: pictures by their paths, for JSON."""
        listed: Messages = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            listed.append({"role": "user", "content": turn.content(paths)})
            if turn.answer is not None:
                listed.append({"role": "assistant", "content": turn.answer})
        return listed

    def ask(self, question: str) -> None:
        """Add a turn without an answer, with the pictures that are attached."""
        assert not self.turns or self.turns[-1].answer is not None, "the last turn has no answer yet"
        self.turns.append(Turn(question, pictures=self.attached))
        self.attached = []

    def answer(self, text: str) -> None:
        """Set the answer of the last turn."""
        self.turns[-1].answer = text

    def reopen(self, question: str | None = None) -> None:
        """Drop the last answer, and replace its question if another one is given. Its pictures stay.

        Raises UserError if there is no turn yet.
        """
        question = question or self.last_question
        self.turns[-1:] = [Turn(question, pictures=self.turns[-1].pictures)]

    @property
    def last_question(self) -> str:
        """Raises UserError if there is no turn yet."""
        if not self.turns:
            raise UserError("There is no message yet.")
        return self.turns[-1].question

    def fit(self, length: Callable[[Messages], int], limit: int) -> int:
        """Drop the oldest turns until the messages have at most `limit` tokens by `length`; return how many.

        The system prompt and the last turn always stay.
        """
        dropped = 0
        while len(self.turns) > 1 and length(self.messages()) > limit:
            del self.turns[0]
            dropped += 1
        return dropped
