"""Conversations -> text and ids, through a model's chat templates: what Tokenizer hands chats to.

Not here: running a template's program (chat.py), telling typed special tokens from the template's (special_text.py),
which tokens are an answer's (answers.py).
Tests: tests/tokenizer/test_chat.py, tests/tokenizer/test_chat_arguments.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nano_llama.core.errors import UserError
from nano_llama.tokenizer.chat import REASONING, ChatTemplate, Message, Templates, check_messages
from nano_llama.tokenizer.codec import Codec
from nano_llama.tokenizer.special_text import SpecialText

# Marks where the final message ends. It is transformers' own, so that no other text is impossible here.
_TAG = "CONTINUE_FINAL_MESSAGE_TAG "
_MAX_PROGRAMS = 8

# Names that a template gets from us: no variable of the caller's may be called so.
RESERVED = ("messages", "tools", "documents", "chat_template", "add_generation_prompt", "continue_final_message")


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """How a conversation is laid out. The fields are documented at Tokenizer.apply_chat_template."""

    add_generation_prompt: bool | None = None
    continue_final_message: bool | str = False
    tools: Sequence[Any] | None = None
    documents: Sequence[Any] | None = None
    chat_template: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.add_generation_prompt and self.continue_final_message:
            raise UserError(
                "continue_final_message and add_generation_prompt exclude each other.",
                hint="The first goes on with the last message, the second begins a new one.",
            )

    @property
    def prompts(self) -> bool:
        """Whether the text ends where the assistant's answer begins."""
        return not self.continue_final_message if self.add_generation_prompt is None else self.add_generation_prompt

    @property
    def continued(self) -> str | None:
        """The field of the final message that stays open; None: no message does."""
        return "content" if self.continue_final_message is True else self.continue_final_message or None


@dataclass(frozen=True)
class Quoted:
    """A template and what it gets; undo: how the special tokens broken in it are put together, for `str.translate`."""

    program: ChatTemplate
    given: Mapping[str, Any]
    undo: Mapping[int, str]


class ConversationEncoder:
    """Chat templates over a codec. Without templates every call raises UserError, unless it brings one."""

    def __init__(self, templates: Templates, codec: Codec):
        self._codec = codec
        self._templates = templates
        self._programs: dict[str, ChatTemplate] = {}  # by source
        self._special_text = SpecialText(codec.special)

    def text(self, messages: Sequence[Message], options: ChatOptions) -> str:
        """See Tokenizer.apply_chat_template."""
        program = self._program(options)
        return self._render(program, self._given(program, messages, options), options)

    def ids(self, messages: Sequence[Message], options: ChatOptions) -> list[int]:
        """See Tokenizer.encode_chat."""
        quoted = self.quoted(messages, options)
        return self.encoded(self.rendered(quoted, options), quoted)

    def quoted(self, messages: Sequence[Message], options: ChatOptions) -> "Quoted":
        """What the template gets, checked, with the special tokens in it broken, for `rendered` and `encoded`."""
        program = self._program(options)
        given = self._given(program, messages, options)
        if not self._special_text.contained_in(given):
            return Quoted(program, given, {})
        return Quoted(program, *self._special_text.broken(given))

    def rendered(self, quoted: "Quoted", options: ChatOptions) -> str:
        """The template's text, in which typed special tokens are still broken."""
        return self._render(quoted.program, quoted.given, options)

    def encoded(self, text: str, quoted: "Quoted") -> list[int]:
        """The ids of what `rendered` returned, or of a part of it."""
        if not quoted.undo:
            return self._codec.encode(text, add_bos=False, parse_special=True)
        return self._codec.encode_quoted(text, quoted.undo)

    def tool_template(self) -> str | None:
        """The source of the chat template that shows tools to the model; None: there is none, or it reads no tools."""
        if not self._templates:
            return None
        program = self._program(ChatOptions(tools=()))
        return program.source if "tools" in program.names else None

    def _program(self, options: ChatOptions) -> ChatTemplate:
        """The template that transformers would take: by name, by source, "tool_use" where there are tools."""
        asked = options.chat_template
        if asked is None:
            asked = "tool_use" if options.tools is not None and "tool_use" in self._templates else "default"
            if not self._templates:
                raise UserError(
                    "This tokenizer has no chat template, so it cannot encode conversations.",
                    hint="Give the model plain text instead: LLM.generate, or  nano-llama generate  without --chat.",
                )
        source = self._templates.get(asked)
        if source is None:
            known = ", ".join(sorted(self._templates)) or "none"
            if asked == "default" and options.chat_template is None:
                raise UserError(
                    "This tokenizer has several chat templates and none that is the default.",
                    hint=f"Choose one:  chat_template=NAME, of {known}.",
                )
            if "{{" not in asked and "{%" not in asked:
                raise UserError(
                    f"chat_template={asked!r:.60} is neither a Jinja template nor the name of one.",
                    hint=f"Names here: {known}.",
                )
            source = asked
        if source not in self._programs:
            if len(self._programs) == _MAX_PROGRAMS:  # each has a process
                del self._programs[next(iter(self._programs))]
            self._programs[source] = ChatTemplate(source)
        return self._programs[source]

    def _given(self, program: ChatTemplate, messages: Sequence[Message], options: ChatOptions) -> dict[str, Any]:
        """What a caller hands to the template: messages, tools, documents, variables. All is read, or refused."""
        optional = {"tools": options.tools, "documents": options.documents}
        wanted = [name for name, value in optional.items() if value] + list(options.variables)
        unknown = [name for name in wanted if name not in program.names]
        if unknown:
            others = sorted(program.names - {"messages", "add_generation_prompt", *optional})
            raise UserError(
                f"The chat template does not read {unknown[0]!r:.60}, so it would change nothing.",
                hint=f"Leave it out. Variables of this template: {', '.join(others) or 'none'}.",
            )
        return {"messages": check_messages(messages, program), **optional, **options.variables}

    def _render(self, program: ChatTemplate, given: Mapping[str, Any], options: ChatOptions) -> str:
        roles, id_to_token = self._codec.roles, self._codec.backend.id_to_token
        ids = {"bos_token": roles.bos, "eos_token": roles.eos, "unk_token": roles.unk, "pad_token": roles.pad}
        ids |= dict(roles.others)
        tokens = {name: id_to_token(number) for name, number in ids.items() if number is not None}
        variables = {**tokens, "add_generation_prompt": options.prompts, **given}
        if options.continued is None:
            return program.render(variables)
        messages, final = _tagged(given["messages"], options.continued, program.source)
        return _cut(program.render({**variables, "messages": messages}), final)


def _tagged(messages: Sequence[Message], name: str, source: str) -> tuple[list[Message], str]:
    """The messages with the tag at the end of the last one's field, and what that field said."""
    last = dict(messages[-1])
    names = [other for other in REASONING if last.get(other) == last.get(name)] if name in REASONING else [name]
    value = last.get(name)
    if value is None or not any(other in source for other in names):
        raise UserError(
            f"continue_final_message: the final message has no {name!r:.40}, or the chat template does not read it.",
            hint="Give the beginning of the answer as the last message's content.",
        )
    if isinstance(value, list):
        parts = [dict(part) for part in value]
        value = parts[-1]["text"] if parts else ""
        last[name] = [*parts[:-1], {**parts[-1], "text": value + _TAG}] if parts else _TAG
    else:
        last |= {other: value + _TAG for other in names}
    return [*messages[:-1], last], value


def _cut(text: str, final: str) -> str:
    """The text up to the tag. A template that trims messages trimmed the tag's space: then the end is trimmed too."""
    place = text.rfind(_TAG.strip())
    if place < 0 or final.strip() not in text:
        raise UserError(
            "continue_final_message: the chat template changes or leaves out the final message.",
            hint="Such a template cannot leave a message open.",
        )
    return text[:place] if text.startswith(_TAG, place) else text[:place].rstrip()
