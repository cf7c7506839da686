"""Chat templates: a list of messages becomes one text, by the Jinja2 program that came with the model.

The program is not trusted. It runs in a process of its own (template_worker.py) that may take 3 seconds and 128 MiB,
so a template that loops or prints endlessly costs an error and nothing else. The process is kept for the next
conversation: starting it takes about 0.2 s, rendering less than a millisecond. Where threads render at once, there are
two of them.

Not here: finding special tokens in the text (conversation.py).
Tests: tests/tokenizer/test_chat.py, test_template_limits.py.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nano_llama.core.errors import FormatError, NanoLlamaError, UserError
from nano_llama.core.limited_process import LimitedProcess, ProcessEnded

RENDER_SECONDS = 3.0
MAX_WORKERS = 2  # processes of one template
MEMORY_BYTES = 128 * 2**20
MAX_TEMPLATE_CHARACTERS = 2**20
MAX_CHARACTERS = 2**22  # of output, in addition to sixteen times the input

ROLES = ("system", "developer", "user", "assistant", "tool")
REASONING = ("reasoning_content", "thinking", "reasoning")  # one thing under three names

Message = Mapping[str, Any]
Templates = Mapping[str, str]  # name -> source; "default" is the one for plain conversations


class ChatTemplate:
    """A template's source, and the processes that render it. Usable from several threads; MAX_WORKERS render at once.

    More than one, so that a conversation which a template takes seconds for does not hold up the next. A second process
    is started when the first is busy.
    """

    def __init__(self, source: str):
        self.source = source
        self._places = threading.BoundedSemaphore(MAX_WORKERS)
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()
        self._facts: dict[str, Any] | None = None

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text of a conversation.

        Raises UserError when the template refuses the messages (raise_exception) or they are not plain data,
        FormatError when the template is not valid, fails, or takes too much time, memory or output.
        """
        try:
            request = json.dumps({"variables": variables}, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError(
                f"Chat messages must be plain data (text, numbers, lists, dicts): {error!s:.200}."
            ) from None
        limit = MAX_CHARACTERS + 16 * len(request)
        with self._worker() as worker:
            return worker.ask({"variables": variables, "limit": limit})["text"]

    @property
    def names(self) -> frozenset[str]:
        """The variables that the template reads. Raises FormatError as `render` does."""
        return frozenset(self._known_facts()["names"])

    @property
    def reads_parts(self) -> bool:
        """Whether it goes through a message's content part by part, so that the content may be a list."""
        return self._known_facts()["reads_parts"]

    @property
    def reads_text(self) -> bool:
        """Whether it prints a content that is a text."""
        return self._known_facts()["reads_text"] or not self.reads_parts

    @property
    def shows_images(self) -> bool:
        """Whether it prints something for a part {"type": "image"}."""
        return self.reads_parts and "image" in self.source

    @property
    def marks_answers(self) -> bool:
        """Whether it has {% generation %} blocks."""
        return self._known_facts()["marks_answers"]

    def _known_facts(self) -> dict[str, Any]:
        if self._facts is None:
            with self._worker() as worker:
                self._facts = worker.facts
        return self._facts

    @contextmanager
    def _worker(self) -> "Iterator[_Worker]":
        """A process for this thread alone: the one that was idle last, or a new one."""
        with self._places:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None or not worker.usable():
                worker = _Worker(self.source)
            try:
                yield worker
            finally:
                if worker.usable():
                    self._idle.append(worker)


class _Worker:
    """One running template_worker. Whatever goes wrong, it is killed, and the next request starts another."""

    def __init__(self, source: str):
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise FormatError(
                f"The chat template has {len(source):,} characters; at most {MAX_TEMPLATE_CHARACTERS:,} are run."
            )
        script = Path(__file__).with_name("template_worker.py")
        setup = {"template": source, "memory": MEMORY_BYTES, "seconds": RENDER_SECONDS}
        self.process = LimitedProcess(script, setup, "A chat template")
        self.facts = self.ask(None)

    def usable(self) -> bool:
        return self.process.usable()

    def ask(self, request: dict[str, Any] | None) -> dict[str, Any]:
        try:
            reply = self.process.exchange(request, RENDER_SECONDS)
        except ProcessEnded as ended:
            raise _no_answer(ended) from None
        if "error" in reply:
            raise _error_from(reply)
        return reply


def _no_answer(ended: ProcessEnded) -> FormatError:
    if ended.late:
        return FormatError(f"The chat template ran longer than {ended.seconds:.0f} s and was stopped.", hint=_HINT)
    return FormatError(
        f"The chat template ended its process (status {ended.status}), perhaps for lack of memory.", hint=_HINT
    )


def _error_from(reply: dict[str, Any]) -> NanoLlamaError:
    message = str(reply.get("message", ""))
    if reply["error"] == "refused":
        return UserError(f"The chat template refuses these messages: {message.removeprefix('Refused: ')}")
    if reply["error"] == "memory":
        return FormatError(f"The chat template needs more than {MEMORY_BYTES // 2**20} MiB.", hint=_HINT)
    if reply["error"] == "too long":
        return FormatError(f"The chat template was stopped: {message.removeprefix('TooLong: ')}.", hint=_HINT)
    if reply["error"] == "syntax":
        return FormatError(f"The chat template is not valid Jinja2: {message}.", hint=_HINT)
    return FormatError(f"The chat template failed: {message}.", hint=_HINT)


_HINT = "It came with the tokenizer's files: see chat_template there."


def check_messages(messages: Sequence[Message], template: ChatTemplate) -> list[dict[str, Any]]:
    """Copies of the messages as the template gets them. Raises UserError for one that is not {"role", "content"}.

    Roles are the usual ones and those that the template itself mentions. Content is a text, or a list of
    {"type": "text", "text": ...}, joined unless the template goes through the parts; to one that does nothing else a
    text is its only part. {"type": "image"} is for templates that show images. An assistant's message may have
    `tool_calls` in place of content. Other keys go to the template as they are, None left out (as in transformers).
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise UserError(f"A list of messages was expected, not {type(messages).__name__}.", hint=_EXAMPLE)
    if not messages:
        raise UserError("The list of messages is empty.", hint=_EXAMPLE)
    return [_checked(message, number, template) for number, message in enumerate(messages)]


_EXAMPLE = 'Messages look like [{"role": "user", "content": "Hello"}].'


def _checked(message: Message, number: int, template: ChatTemplate) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise UserError(f"Message {number} is {type(message).__name__}, not a dict: {message!r:.80}.", hint=_EXAMPLE)
    given = {name: value for name, value in message.items() if value is not None}
    role, content = given.get("role"), given.get("content")
    if not isinstance(role, str) or not (role in ROLES or (role and role in template.source)):
        raise UserError(f"Message {number} has the role {role!r:.60}; roles are {', '.join(ROLES)}.", hint=_EXAMPLE)
    if isinstance(content, list | tuple):
        texts = [_text_of(part, f"Message {number} ({role})", content, template) for part in content]
        given["content"] = [dict(part) for part in content] if template.reads_parts else "".join(texts)
    elif not isinstance(content, str) and not (content is None and role == "assistant" and given.get("tool_calls")):
        raise UserError(f"Message {number} ({role}) has content {content!r:.60}; a string was expected.", hint=_EXAMPLE)
    elif isinstance(content, str) and not template.reads_text:
        given["content"] = [{"type": "text", "text": content}]
    reasoning = next((given[name] for name in REASONING if name in given), None)
    return given if reasoning is None else {"thinking": reasoning, **given, "reasoning_content": reasoning}


def _text_of(part: Any, where: str, content: Sequence[Any], template: ChatTemplate) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "image" and template.shows_images:
        return ""
    if kind is not None and kind != "text":
        raise UserError(
            f"{where} has a part of type {kind!r:.40}; only parts of type 'text' are read.",
            hint="Leave it out, or describe it in words.",
        )
    if kind is None or not isinstance(part.get("text"), str):
        raise UserError(
            f"{where} has content {content!r:.60}; a string or a list of parts was expected.",
            hint='Parts look like {"type": "text", "text": "Hello"}.',
        )
    return part["text"]
