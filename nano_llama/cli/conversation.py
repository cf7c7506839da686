"""A conversation as data: turns, a system prompt, and the rules for editing, repeating and dropping turns.

Tests: tests/cli/test_conversation.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from nano_llama.core.errors import UserError

Messages = list[dict[str, str]]


@dataclass
class Turn:
    """A user message and its answer; None while there is no answer yet."""

    question: str
    answer: str | None = None


@dataclass
class Conversation:
    """The turns so far. Only the last one may be without an answer."""

    system: str | None = None
    turns: list[Turn] = field(default_factory=list)

    def messages(self) -> Messages:
        """As chat templates take them, with roles system, user and assistant."""
        listed = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            listed.append({"role": "user", "content": turn.question})
            if turn.answer is not None:
                listed.append({"role": "assistant", "content": turn.answer})
        return listed

    def ask(self, question: str) -> None:
        """Add a turn without an answer."""
        assert not self.turns or self.turns[-1].answer is not None, "the last turn has no answer yet"
        self.turns.append(Turn(question))

    def answer(self, text: str) -> None:
        """Set the answer of the last turn."""
        self.turns[-1].answer = text

    def reopen(self, question: str | None = None) -> None:
        """Drop the last answer, and replace its question if another one is given.

        Raises UserError if there is no turn yet.
        """
        self.turns[-1:] = [Turn(question or self.last_question)]

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
