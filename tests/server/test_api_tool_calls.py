"""Reading tool calls from text that comes in pieces (tool_calls.py): the same whatever the pieces are."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nano_llama.server.tool_calls import CallList, Found, NamedCall, TaggedCalls, joined

CALL = '{"name": "add", "arguments": {"a": 1, "b": [2, {"c": "}"}]}}'
ADD = ("add", {"a": 1, "b": [2, {"c": "}"}]})
HERMES = [
    ("no call at all", "no call at all", []),
    ("a < b, <tool, <tool_call", "a < b, <tool, <tool_call", []),
    (f"<tool_call>\n{CALL}\n</tool_call>", "", [ADD]),
    (f"Let me see.\n<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>\n", "Let me see.", [ADD, ADD]),
    (f"<tool_call>{CALL}</tool_call> and more", " and more", [ADD]),
    ('<tool_call>{"arguments": {"x": 1}, "name": "f"}</tool_call>', "", [("f", {"x": 1})]),
    ('<tool_call>{"name": "f"}</tool_call>', "", [("f", {})]),
    (
        '<tool_call>{"name": "a\\"b", "arguments": {"s": "</tool_call>"}}</tool_call>',
        "",
        [('a"b', {"s": "</tool_call>"})],
    ),
    ("<tool_call>nothing</tool_call>", "<tool_call>nothing</tool_call>", []),
    ('<tool_call>{"x": 1}</tool_call>', '<tool_call>{"x": 1}</tool_call>', []),
    ('<tool_call>{"name": "f", "argu', '<tool_call>{"name": "f", "argu', []),
    (f"<tool_call>{CALL}", "", [ADD]),
    (f"<tool_call>{CALL}</tool", "", [ADD]),
]
LLAMA = [
    ('{"name": "f", "parameters": {"x": "é"}}', "", [("f", {"x": "é"})]),
    (f"{CALL}; {CALL}\n", "", [ADD, ADD]),
    ("Hello {you}", "Hello {you}", []),
    (' {"a": 1} is JSON', ' {"a": 1} is JSON', []),
    (f"{CALL} and so on", " and so on", [ADD]),
    ('{"name": "f", "par', '{"name": "f", "par', []),
]
ARRAY = [
    (f"[{CALL}]", "", [ADD]),
    (f"[\n  {CALL},\n  {CALL}\n]\n", "", [ADD, ADD]),
]


def split(text: str, cuts: list[int]) -> list[str]:
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[begin:end] for begin, end in pairwise(places)]


def read(reader, pieces: list[str]) -> Found:
    found = Found()
    for piece in pieces:
        found += reader.push(piece)
    found += reader.finish()
    return found


def calls_of(found: Found) -> list[tuple]:
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in joined(found.calls)]


def readers():
    return {
        "hermes": (lambda: TaggedCalls("<tool_call>", "</tool_call>", True), HERMES),
        "llama": (lambda: CallList(";", True), LLAMA),
        "array": (lambda: CallList("[],", True), ARRAY),
    }


@pytest.mark.parametrize("kind", ["hermes", "llama", "array"])
@given(data=st.data())
def test_any_pieces_give_the_same_calls_and_text(kind, data):
    make, cases = readers()[kind]
    text, rest, calls = data.draw(st.sampled_from(cases))
    pieces = split(text, data.draw(st.lists(st.integers(0, 200), max_size=12)))
    found = read(make(), pieces)
    assert found.text == rest
    assert calls_of(found) == calls


@pytest.mark.parametrize("kind", ["hermes", "llama", "array"])
def test_letter_by_letter(kind):
    make, cases = readers()[kind]
    for text, rest, calls in cases:
        found = read(make(), list(text))
        assert (found.text, calls_of(found)) == (rest, calls), text


def test_pieces_have_the_shape_of_a_stream():
    found = read(TaggedCalls("<tool_call>", "</tool_call>", True), list(f"<tool_call>{CALL}</tool_call>" * 2))
    for index in (0, 1):
        first, *others = [piece for piece in found.calls if piece["index"] == index]
        assert first["type"] == "function" and first["id"].startswith("call_") and first["function"]["name"] == "add"
        assert others and all(set(piece) == {"index", "function"} for piece in others)
        assert all(set(piece["function"]) == {"arguments"} for piece in others)
    assert len({piece["id"] for piece in found.calls if "id" in piece}) == 2


def test_arguments_go_out_as_they_are_written():
    reader = TaggedCalls("<tool_call>", "</tool_call>", True)
    sent = [reader.push(piece).calls for piece in ('<tool_call>{"name": "f", "arguments": {"te', 'xt": "lo', "ng")]
    assert [call["function"]["arguments"] for calls in sent for call in calls] == ['{"te', 'xt": "lo', "ng"]


def test_a_call_that_was_cut_keeps_what_was_sent():
    found = read(CallList("[],", True), ['[{"name": "f", "arguments": {"a": 1'])
    (call,) = joined(found.calls)
    assert call["function"] == {"name": "f", "arguments": '{"a": 1'} and found.text == ""


def test_without_parallel_calls_only_the_first_counts():
    for reader, text in (
        (TaggedCalls("<tool_call>", "</tool_call>", False), f"<tool_call>{CALL}</tool_call>" * 3),
        (CallList(";", False), f"{CALL};{CALL}"),
    ):
        assert calls_of(read(reader, list(text))) == [ADD]


def test_a_named_call_is_its_arguments():
    found = read(NamedCall("f"), ['{"a"', "", ": 1}"])
    assert calls_of(found) == [("f", {"a": 1})] and found.text == ""


def test_text_behind_a_whole_call_does_not_make_it_half():
    reader = CallList(";", parallel=True)
    found = reader.push('{"name": "f", "parameters": {}}; and so on')
    found += reader.finish()
    assert (reader.num_calls, reader.amid_call, found.text) == (1, False, "; and so on")
