"""Conversations -> text and ids, through a model's chat template: what Tokenizer hands chats to.

Not here: running the template's program (chat.py), telling typed special tokens from the template's (special_text.py).
Tests: tests/tokenizer/test_chat.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nano_llama.core.errors import UserError
from nano_llama.tokenizer.chat import ChatTemplate, Message, check_messages
from nano_llama.tokenizer.codec import Codec
from nano_llama.tokenizer.special_text import SpecialText


class ConversationEncoder:
    """A chat template over a codec. template: its source, or None, and every call raises UserError."""

    def __init__(self, template: str | None, codec: Codec):
        self.template = template
        self._codec = codec
        self._program = ChatTemplate(template) if template is not None else None
        self._special_text = SpecialText(codec.special)

    def text(self, messages: Sequence[Message], add_generation_prompt: bool, variables: Mapping[str, Any]) -> str:
        """See Tokenizer.apply_chat_template."""
        return self._render(self._checked(messages, variables), add_generation_prompt)

    def ids(self, messages: Sequence[Message], add_generation_prompt: bool, variables: Mapping[str, Any]) -> list[int]:
        """See Tokenizer.encode_chat."""
        given = self._checked(messages, variables)
        if not self._special_text.contained_in(given):
            return self._codec.encode(self._render(given, add_generation_prompt), add_bos=False, parse_special=True)
        broken, undo = self._special_text.broken(given)
        ids: list[int] = []
        for piece in self._special_text.split(self._render(broken, add_generation_prompt)):
            if isinstance(piece, int):
                ids.append(piece)
            else:
                ids += self._codec.backend.encode(piece.translate(undo), continues=bool(ids))
        return ids

    def _checked(self, messages: Sequence[Message], variables: Mapping[str, Any]) -> dict[str, Any]:
        return {"messages": check_messages(messages, self.template or ""), **variables}

    def _render(self, variables: Mapping[str, Any], add_generation_prompt: bool) -> str:
        if self._program is None:
            raise UserError(
                "This tokenizer has no chat template, so it cannot encode conversations.",
                hint="Give the model plain text instead: generate without --chat.",
            )
        roles, id_to_token = self._codec.roles, self._codec.backend.id_to_token
        ids = {"bos_token": roles.bos, "eos_token": roles.eos, "unk_token": roles.unk, "pad_token": roles.pad}
        tokens = {name: id_to_token(number) for name, number in ids.items() if number is not None}
        defaults = {"tools": None, "documents": None, "add_generation_prompt": add_generation_prompt}
        return self._program.render({**tokens, **defaults, **variables})
