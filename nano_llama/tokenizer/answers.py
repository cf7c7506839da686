"""Which tokens of a conversation the model is to learn: each answer of the assistant and the mark that ends it.

    AnswerEncoder(tokenizer).conversation(messages)   ->  [LearnedIds]: ids, and for each of them whether it is learned

An answer is what the model would have to write when it is served. So its prompt is the conversation before it with the
template's generation prompt, its ids are those of `Tokenizer.encode_chat`, and it ends with the first token that ends
an answer (`Tokenizer.stop_ids`). Where the template has {% generation %} blocks, they say which of it is learned.
Everything is found by rendering and encoding beginnings of the conversation, and each must be a beginning of the whole:
what cannot be found exactly is refused, not guessed.

Some templates show earlier answers in another form than the last (without its reasoning, say). Then one list of ids
cannot hold both as they are served, and a conversation becomes several, each up to an answer that is learned in it.

Tests: tests/tokenizer/test_answers.py, tests/tokenizer/test_answers_refused.py.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nano_llama.core.errors import UserError
from nano_llama.tokenizer.chat import REASONING, Message
from nano_llama.tokenizer.conversation import ChatOptions, Quoted
from nano_llama.tokenizer.template_worker import GENERATION
from nano_llama.tokenizer.tokenizer import Tokenizer

_PROBE = "PROBE"  # an answer that shows what a template writes before one
_BEGIN, _END = "\ufdd0", "\ufdd1"  # around {% generation %} blocks; noncharacters, which no text has
_INSTRUCTIONS = ("system", "developer")


@dataclass(frozen=True)
class LearnedIds:
    """ids of a text, and for each whether the model is to learn it (never the first: nothing predicts it)."""

    ids: list[int]
    learned: list[bool]

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.learned), "one flag for each id"

    @property
    def num_learned(self) -> int:
        return sum(self.learned)


class AnswerEncoder:
    """Examples -> ids and what is learned of them, for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer

    # -- texts without a template -------------------------------------------------------------------------------------

    def text(self, text: str) -> LearnedIds:
        """A document: all of it is learned, and the EOS that ends it."""
        ids = [*self._start(), *self.tokenizer.encode(text, add_bos=False), self._eos()]
        return LearnedIds(ids, [False, *[True] * (len(ids) - 1)])

    def completion(self, prompt: str, completion: str) -> LearnedIds:
        """A prompt, and its continuation, which is learned together with the EOS that ends it.

        The prompt has the ids that `Tokenizer.encode` gives it, since they are what the model is served.
        """
        encode = self.tokenizer.encode
        before = [*self._start(), *encode(prompt, add_bos=False)]
        if not before:
            raise UserError(
                "The prompt is empty, so nothing comes before the completion.",
                hint='Give it a prompt, or the whole as {"text": ...}.',
            )
        whole = [*self._start(), *encode(prompt + completion, add_bos=False)]
        ids = _joined(self.tokenizer, before, whole, completion, lambda: encode(completion, add_bos=False))
        ids = [*ids, self._eos()]
        return LearnedIds(ids, [False] * len(before) + [True] * (len(ids) - len(before)))

    def _start(self) -> tuple[int, ...]:
        return self.tokenizer.roles.prefix

    def _eos(self) -> int:
        if self.tokenizer.eos_id is None:
            raise UserError(
                "This tokenizer has no EOS token, so the model could not learn where a text ends.",
                hint="Name one as eos_token in its tokenizer_config.json.",
            )
        return self.tokenizer.eos_id

    # -- conversations ------------------------------------------------------------------------------------------------

    def conversation(
        self, messages: Sequence[Message], *, tools: Sequence[Any] | None = None, **variables: Any
    ) -> list[LearnedIds]:
        """The conversation up to its last answer, by the model's chat template; see the module for why it is a list.

        The arguments are those of `Tokenizer.encode_chat`. Raises UserError where a message or a field would be lost,
        an answer has no prompt, or what is learned cannot be found exactly.
        """
        if not self.tokenizer.chat_templates:
            raise UserError(
                "This tokenizer has no chat template, so it cannot encode conversations.",
                hint='Give examples as {"prompt": ..., "completion": ...}, or the tokenizer a chat_template.jinja.',
            )
        options = ChatOptions(tools=tools, variables=variables)
        quoted = self.tokenizer.conversations.quoted(messages, options)
        _check_order(quoted.given["messages"])
        _check_fields(quoted)
        found: list[LearnedIds] = []
        for number, message in enumerate(quoted.given["messages"]):
            answer = (
                _Answer(self.tokenizer, quoted, options, number).learned_ids()
                if message["role"] == "assistant"
                else None
            )
            if answer is None:
                continue
            if found and answer.ids[: len(found[-1].ids)] == found[-1].ids:  # the same up to there: one list
                before = found.pop().learned
                answer = LearnedIds(answer.ids, before + answer.learned[len(before) :])
            found.append(answer)
        if not found:
            raise UserError(
                "Nothing of this conversation is learned: no {% generation %} block of the chat template is in it.",
                hint="Mark the assistant's answers in the template, or take the blocks out of it.",
            )
        return found


class _Answer:
    """One answer of a conversation, which is rendered and encoded up to it."""

    def __init__(self, tokenizer: Tokenizer, quoted: Quoted, options: ChatOptions, number: int):
        """number: of the answer's message."""
        self.tokenizer, self.quoted, self.options, self.number = tokenizer, quoted, options, number
        messages = quoted.given["messages"]
        self.prompt = self.render(messages[:number], prompt=True)
        self.whole = self.render(messages[: number + 1])
        _check_nothing_lost(messages[: number + 1], self.whole)

    def learned_ids(self) -> LearnedIds | None:
        """The ids up to the answer's end mark, with what is learned of this answer alone; None: it is not marked."""
        spans = self.marked_spans() if self.quoted.program.marks_answers else None
        if spans is not None and not spans:
            return None
        start = self.start() if spans is None else spans[0][0]
        before = self.encode(self.whole[:start])
        rest = self.whole[start:].translate(self.quoted.undo)
        ids = _joined(self.tokenizer, before, self.encode(self.whole), rest, lambda: self.encode(self.whole[start:]))
        self.check_beginning(ids)
        end = self.end_mark(ids, len(before))
        learned = [spans is None and place >= len(before) for place in range(end + 1)]
        for begin, stop in spans or ():
            for place in range(self.ids_before(begin, start, ids), min(self.ids_before(stop, start, ids), end)):
                learned[place] = True
        learned[end] = True
        return LearnedIds(ids[: end + 1], learned)

    def render(self, messages: Sequence[Message], prompt: bool = False, marks: tuple[str, str] | None = None) -> str:
        given = {**self.quoted.given, "messages": messages}
        if marks:
            given |= dict(zip(GENERATION, marks, strict=True))
        options = replace(self.options, add_generation_prompt=prompt)
        return self.tokenizer.conversations.rendered(replace(self.quoted, given=given), options)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.conversations.encoded(text, self.quoted)

    # -- where it begins ----------------------------------------------------------------------------------------------

    def start(self) -> int:
        """Where the answer begins in the whole: at the end of its prompt."""
        if not self.whole.startswith(self.prompt):
            shown = self.whole[_common(self.prompt, self.whole) :][:40]
            expected = self.prompt[_common(self.prompt, self.whole) :][:40]
            raise UserError(
                f"The chat template begins message {self.number} (assistant) otherwise than its generation prompt does:"
                f" {shown!r} instead of {expected!r}.",
                hint="Mark the answer in the template by {% generation %} ... {% endgeneration %}.",
            )
        if "add_generation_prompt" not in self.quoted.program.names:
            self.check_no_header()
        return len(self.prompt)

    def check_no_header(self) -> None:
        """Without a generation prompt, a header before the answer would be learned as a part of it."""
        probe = {"role": "assistant", "content": _PROBE}
        text = self.render([*self.quoted.given["messages"][: self.number], probe])
        header, found, _ = text[len(self.prompt) :].partition(_PROBE)
        if header.strip() or not found or not text.startswith(self.prompt):
            raise UserError(
                f"The chat template has no generation prompt, and writes {header[:40]!r} before an answer, which would"
                " be learned as a part of it.",
                hint="Let it write that where add_generation_prompt is true, or mark answers by {% generation %}.",
            )

    def marked_spans(self) -> list[tuple[int, int]]:
        """What {% generation %} blocks mark in the whole, without those of earlier answers."""
        messages = self.quoted.given["messages"]
        earlier = _spans(self.render(messages[: self.number], True, (_BEGIN, _END)), self.prompt)
        spans = _spans(self.render(messages[: self.number + 1], False, (_BEGIN, _END)), self.whole)
        if spans[: len(earlier)] != earlier:
            raise UserError(
                f"The {{% generation %}} blocks of the chat template move when message {self.number} is added.",
                hint="Let each block hold one answer, wherever it is in the conversation.",
            )
        return [(first, last) for first, last in spans[len(earlier) :] if last > first]

    # -- in ids -------------------------------------------------------------------------------------------------------

    def ids_before(self, position: int, start: int, ids: list[int]) -> int:
        """How many of the ids stand before this position of the whole, which is not before the answer's start."""
        before = self.encode(self.whole[:position])
        if ids[: len(before)] != before:  # perhaps the answer is encoded apart from its prompt
            before = [*self.encode(self.whole[:start]), *self.encode(self.whole[start:position])]
        if ids[: len(before)] != before:
            around = self.whole[max(position - 10, 0) : position + 10]
            raise UserError(
                f"A {{% generation %}} block of the chat template begins or ends within a token, in {around!r}.",
                hint="Let it end where the answer's end mark begins or ends.",
            )
        return len(before)

    def end_mark(self, ids: list[int], first: int) -> int:
        """The place of the token that ends the answer, which begins at `first`."""
        end = next((place for place in range(first, len(ids)) if ids[place] in self.tokenizer.stop_ids), None)
        if end is None:
            known = ", ".join(sorted(repr(self.tokenizer.backend.id_to_token(i)) for i in self.tokenizer.stop_ids))
            raise UserError(
                "The chat template writes no token after an answer that ends it, so the model could not learn to stop.",
                hint=f"Let it write one of {known or 'its EOS token (this tokenizer has none)'} after each answer.",
            )
        after = self.tokenizer.decode(ids[end + 1 :], skip_special=True, continues=True)
        if after.strip():
            mark = self.tokenizer.backend.id_to_token(ids[end])
            raise UserError(
                f"Message {self.number} (assistant) goes on after {mark!r}, which ends an answer: {after[:40]!r}.",
                hint="Serving it would stop there. Give such an answer as two, or another template.",
            )
        return end

    def check_beginning(self, ids: list[int]) -> None:
        bos = self.tokenizer.bos_id
        if bos is not None and ids[:2] == [bos, bos]:
            raise UserError(
                f"The chat template writes {self.tokenizer.backend.id_to_token(bos)!r} twice at the beginning.",
                hint="Let it write BOS once: encoding a conversation adds none.",
            )


def _joined(
    tokenizer: Tokenizer, before: list[int], whole: list[int], text: str, alone: Callable[[], list[int]]
) -> list[int]:
    """The ids of the whole, which begin with the prompt's.

    Where a token of the whole would lie across the prompt's end, the model never sees it: the prompt is encoded
    before there is an answer. There the answer's ids are those of its text alone, if they spell exactly that text.
    """
    if whole[: len(before)] == before:
        return whole
    ids = alone()
    if tokenizer.decode(ids, skip_special=False, continues=True) != text:
        raise UserError(
            f"The answer's beginning ({text[:20]!r}) would be one token with the end of its prompt, and this"
            " tokenizer cannot encode it apart.",
            hint="Begin the answer with a letter, or end the prompt without white space.",
        )
    return [*before, *ids]


def _spans(marked: str, plain: str) -> list[tuple[int, int]]:
    """Where the marks are in the text without them."""
    spans: list[tuple[int, int]] = []
    length = 0
    for number, piece in enumerate(marked.replace(_END, _BEGIN).split(_BEGIN)):
        if number % 2:
            spans.append((length, length + len(piece)))
        length += len(piece)
    text = marked.replace(_BEGIN, "").replace(_END, "")
    in_turn = [letter for letter in marked if letter in (_BEGIN, _END)]
    if text != plain or in_turn != [_BEGIN, _END] * len(spans):
        raise UserError(
            "The {% generation %} blocks of the chat template cannot be followed: it changes text that has them.",
            hint="Let it print a block where it stands, and no block within another.",
        )
    return spans


def _check_order(messages: Sequence[Mapping[str, Any]]) -> None:
    roles = [message["role"] for message in messages]
    if "assistant" not in roles:
        raise UserError(
            f"No message is the assistant's (roles: {', '.join(roles[:8])}), so there is nothing to learn.",
            hint='Add one:  {"role": "assistant", "content": ...}.',
        )
    if roles[-1] != "assistant":
        raise UserError(
            f"The last message is not the assistant's but has the role {roles[-1]!r}.",
            hint="Remove what has no answer, or add the answer.",
        )
    for number, (before, role) in enumerate(zip([None, *roles], roles, strict=False)):
        if role == "assistant" and before in (None, "assistant"):
            after = "the first" if before is None else "after another answer"
            raise UserError(
                f"Message {number} is the assistant's and {after}: nothing is asked.",
                hint="Put the user's message before it, or join the two.",
            )
        if role in _INSTRUCTIONS and not all(earlier in _INSTRUCTIONS for earlier in roles[:number]):
            raise UserError(
                f"Message {number} has the role {role!r}, and is not at the beginning.",
                hint="Put it first, or give it to the user.",
            )


def _check_fields(quoted: Quoted) -> None:
    """Refuse fields that would change nothing."""
    for number, message in enumerate(quoted.given["messages"]):
        where = f"Message {number} ({message['role']})"
        if "tool_calls" in message and not re.search(r"\btool_calls\b", quoted.program.source):
            raise UserError(
                f"{where} has 'tool_calls', which the chat template does not read.",
                hint="Leave such conversations out, or give a template that reads them.",
            )
        if "weight" in message:
            raise UserError(
                f"{where} has 'weight': {message['weight']!r}; every answer is learned, and with the same weight.",
                hint="Remove the field, or the conversation.",
            )
        given = (str(message.get(name) or "").strip() for name in ("content", "tool_calls"))
        if message["role"] == "assistant" and not any(given):
            raise UserError(f"{where} is empty, so there is nothing to learn.", hint="Remove it, or write the answer.")


def _check_nothing_lost(messages: Sequence[Mapping[str, Any]], text: str) -> None:
    """Refuse text that the template leaves out: a system message, say. Of earlier answers it may, as in serving."""
    for number, message in enumerate(messages):
        kept = message["role"] in (*_INSTRUCTIONS, "user")
        fields = ("content", *REASONING) if number == len(messages) - 1 else ("content",) if kept else ()
        for field in fields:
            value = message.get(field)
            pieces = re.split("</?think>", value) if isinstance(value, str) else ()
            if not all(piece.strip() in text for piece in pieces):
                raise UserError(
                    f"The {field} of message {number} ({message['role']}) is not in what the chat template writes.",
                    hint="Remove it from the data, or give a template that writes it.",
                )


def _common(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginnings."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
