"""One record of a data file -> an example. The form is known by the record's fields:

    {"messages": [{"role": "user", "content": ...}, ...]}              a conversation; "tools" may stand beside
    {"conversations": [{"from": "human", "value": ...}, ...]}          the same (ShareGPT); "system", "tools" beside
    {"instruction": ..., "input": ..., "output": ...}                  one question and answer (Alpaca); "system" beside
    {"prompt": ..., "completion": ...}                                 a text and its continuation, without a template
    {"text": ...}                                                      a text, all of which is learned

Tests: tests/data/sft/test_examples.py.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nano_llama.core.errors import FormatError
from nano_llama.data.readers import ONE_A_LINE

Record = Mapping[str, Any]

SHAREGPT_ROLES = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "model": "assistant", "tool": "tool", "observation": "tool",
}  # fmt: skip


@dataclass(frozen=True)
class Conversation:
    """Messages as `Tokenizer.encode_chat` takes them: the assistant's are learned. where: file and line."""

    where: str
    messages: list[Record]
    tools: list[Any] | None = None


@dataclass(frozen=True)
class Completion:
    """A prompt and what is learned after it."""

    where: str
    prompt: str
    completion: str


@dataclass(frozen=True)
class Text:
    """A document, learned as a whole."""

    where: str
    text: str


Example = Conversation | Completion | Text


def read_example(record: Any, where: str) -> tuple[Example, set[str]]:
    """-> the example, and the names of the record's fields that are not read. Raises FormatError, naming `where`."""
    if not isinstance(record, dict):
        hint = ONE_A_LINE if isinstance(record, list) else _HINT
        raise FormatError(f"{where}: one object was expected, not {_shown(record)}.", hint=hint)
    given = {name: value for name, value in record.items() if value is not None}
    for names, optional, read in _FORMS:
        if names <= given.keys():
            return read(given, where), set(given) - names - optional
    fields = ", ".join(f"{name}" if name in given else f"{name} (null)" for name in record)[:100] or "none"
    raise FormatError(f"{where}: no form of example has these fields: {fields}.", hint=_ALL_FORMS)


def _conversation(record: Record, where: str) -> Conversation:
    messages = _list(record, "messages", where)
    return Conversation(where, messages, _list(record, "tools", where) if "tools" in record else None)


def _sharegpt(record: Record, where: str) -> Conversation:
    turns = _list(record, "conversations", where)
    if turns and isinstance(turns[0], dict) and "role" in turns[0]:  # messages under this name
        messages: list[Record] = turns
    else:
        messages = [_turn(turn, f"{where}: turn {number}") for number, turn in enumerate(turns)]
    tools = _list(record, "tools", where) if "tools" in record else None
    return Conversation(where, [*_system(record, where), *messages], tools)


def _turn(turn: Any, place: str) -> Record:
    if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
        raise FormatError(f"{place} is {_shown(turn)}.", hint='Turns look like {"from": "human", "value": "Hello"}.')
    role = SHAREGPT_ROLES.get(str(turn.get("from")))
    if role is None:
        raise FormatError(
            f'{place} is "from" {_shown(turn.get("from"))}.', hint=f"Known are {', '.join(SHAREGPT_ROLES)}."
        )
    return {"role": role, "content": turn["value"]}


def _alpaca(record: Record, where: str) -> Conversation:
    if record.get("history"):
        raise FormatError(
            f'{where}: "history" beside "instruction" is not read.', hint='Give conversations as {"messages": [...]}.'
        )
    question = _text(record, "instruction", where)
    if "input" in record and (given := _text(record, "input", where)):
        question = f"{question}\n\n{given}"
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": _text(record, "output", where)}]
    return Conversation(where, [*_system(record, where), *messages])


def _completion(record: Record, where: str) -> Completion:
    prompt, completion = (record[name] for name in ("prompt", "completion"))
    if isinstance(prompt, list) and isinstance(completion, list):
        raise FormatError(
            f'{where}: "prompt" and "completion" are lists.',
            hint='Give conversations as {"messages": [...]}: all answers in them are learned.',
        )
    prompt, completion = _text(record, "prompt", where), _text(record, "completion", where)
    if not completion:
        raise FormatError(f'{where}: "completion" is empty, so there is nothing to learn.', hint="Remove the line.")
    return Completion(where, prompt, completion)


def _whole_text(record: Record, where: str) -> Text:
    text = _text(record, "text", where)
    if not text:
        raise FormatError(f'{where}: "text" is empty, so there is nothing to learn.', hint="Remove the line.")
    return Text(where, text)


def _system(record: Record, where: str) -> list[Record]:
    text = _text(record, "system", where) if "system" in record else ""
    return [{"role": "system", "content": text}] if text else []


def _text(record: Record, name: str, where: str) -> str:
    if not isinstance(record[name], str):
        raise FormatError(f'{where}: "{name}" is {_shown(record[name])}; a text was expected.', hint=_HINT)
    return record[name]


def _list(record: Record, name: str, where: str) -> list[Any]:
    if not isinstance(record[name], list):
        raise FormatError(f'{where}: "{name}" is {_shown(record[name])}; a list was expected.', hint=_HINT)
    return record[name]


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:60]


Form = tuple[set[str], set[str], Callable[[Record, str], Example]]  # fields it is known by, others it reads, reader
_FORMS: tuple[Form, ...] = (
    ({"messages"}, {"tools"}, _conversation),
    ({"conversations"}, {"system", "tools"}, _sharegpt),
    ({"prompt", "completion"}, set(), _completion),
    ({"instruction", "output"}, {"input", "system", "history"}, _alpaca),
    ({"text"}, set(), _whole_text),
)
_ALL_FORMS = (
    'Known are {"messages": [...]}, {"conversations": [...]}, {"prompt": ..., "completion": ...},'
    ' {"instruction": ..., "output": ...} and {"text": ...}.'
)
_HINT = (
    'Examples look like {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}.'
)
