"""The rules of a conversation, without a terminal and without a model."""

import pytest

from nano_llama.cli.conversation import Conversation
from nano_llama.core.errors import UserError


def talk(*pairs, system=None):
    conversation = Conversation(system)
    for question, answer in pairs:
        conversation.ask(question)
        conversation.answer(answer)
    return conversation


def test_messages_in_order():
    conversation = talk(("a", "b"), system="be brief")
    conversation.ask("c")
    assert [(m["role"], m["content"]) for m in conversation.messages()] == [
        ("system", "be brief"), ("user", "a"), ("assistant", "b"), ("user", "c"),
    ]  # fmt: skip


def test_reopen_repeats_or_replaces_the_last_question():
    conversation = talk(("a", "b"), ("c", "d"))
    conversation.reopen()
    assert conversation.messages()[-1] == {"role": "user", "content": "c"}
    conversation.reopen("e")
    assert [m["content"] for m in conversation.messages()] == ["a", "b", "e"]


def test_nothing_to_reopen():
    with pytest.raises(UserError, match="no message yet"):
        Conversation().reopen()


def words(messages):
    return sum(len(m["content"].split()) for m in messages)


def test_fit_drops_the_oldest_and_keeps_system_and_question():
    conversation = talk(("one two", "three"), ("four five", "six"), system="sys")
    conversation.ask("seven eight")
    assert conversation.fit(words, 100) == 0
    assert conversation.fit(words, 6) == 1
    assert [m["content"] for m in conversation.messages()] == ["sys", "four five", "six", "seven eight"]
    assert conversation.fit(words, 1) == 1
    assert [m["content"] for m in conversation.messages()] == ["sys", "seven eight"], "too long, and yet it stays"
