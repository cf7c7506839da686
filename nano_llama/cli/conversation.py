"""A conversation as data: turns, a system message, and the rules for editing, repeating and forgetting them.

Not here: the terminal (chat.py) and the model. Tests: tests/cli/test_conversation.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from nano_llama.core.errors import UserError

Messages = list[dict[str, str]]


@dataclass
class Turn:
    """A question and its answer; None while there is no answer yet."""

    question: str
    answer: str | None = None


@dataclass
class Conversation:
    """What was said so far. Only the last turn may be without an answer."""

    system: str | None = None
    turns: list[Turn] = field(default_factory=list)

    def messages(self) -> Messages:
        """As chat templates take them: roles system, user, assistant."""
        listed = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            listed.append({"role": "user", "content": turn.question})
            if turn.answer is not None:
                listed.append({"role": "assistant", "content": turn.answer})
        return listed

    def ask(self, question: str) -> None:
        """Add a question, which waits for its answer."""
        assert not self.turns or self.turns[-1].answer is not None, "the last question has no answer yet"
        self.turns.append(Turn(question))

    def answer(self, text: str) -> None:
        """Answer the last question."""
        self.turns[-1].answer = text

    def reopen(self, question: str | None = None) -> None:
        """Forget the last answer, and put another question in place of the last if one is given.

        Raises UserError where nothing was asked yet.
        """
        self.turns[-1:] = [Turn(question or self.last_question)]

    @property
    def last_question(self) -> str:
        """Raises UserError where nothing was asked yet."""
        if not self.turns:
            raise UserError("Nothing was asked yet.")
        return self.turns[-1].question

    def fit(self, length: Callable[[Messages], int], limit: int) -> int:
        """Drop the oldest turns until `length` of the messages is at most `limit` tokens; return how many went.

        The system message and the last question always stay.
        """
        dropped = 0
        while len(self.turns) > 1 and length(self.messages()) > limit:
            del self.turns[0]
            dropped += 1
        return dropped
