"""Forced tool calls and structured outputs (tools.py, parameters.py) on random weights: always valid JSON."""

import json
import re

import pytest

from helpers.api import TEMPLATE, events, post, scripted_llm, served
from nano_llama.server.tool_calls import joined

pytest.importorskip("llguidance")

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ASK = [{"role": "user", "content": "the quick"}]
PLACE = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"$ref": "#/$defs/days"}},
    "required": ["city", "days"],
    "additionalProperties": False,
    "$defs": {"days": {"type": "boolean"}},
}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PLACE}}
PING = {"type": "function", "function": {"name": "ping"}}


def check(name: str, arguments: str) -> None:
    read = json.loads(arguments)
    if name == "ping":
        assert read == {}
    else:
        assert name == "weather" and read["city"] in ("Rome", "Oslo") and isinstance(read["days"], bool)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_forced_call_obeys_the_function_s_schema(client, choice, seed):
    body = {"messages": ASK, "tools": [WEATHER, PING], "tool_choice": choice, "parallel_tool_calls": False}
    (plain,) = post(client, CHAT, **body, seed=seed, max_tokens=150)["choices"]
    assert plain["finish_reason"] == "tool_calls" and plain["message"]["content"] is None
    (call,) = plain["message"]["tool_calls"]
    check(**call["function"])
    chunks = [chunk["choices"][0] for chunk in events(client, CHAT, **body, seed=seed, max_tokens=150)]
    (streamed,) = joined([piece for chunk in chunks for piece in chunk["delta"].get("tool_calls", ())])
    assert streamed["function"] == call["function"] and chunks[-1]["finish_reason"] == "tool_calls"


def test_a_forced_call_that_is_cut_off_is_length(client):
    body = {"messages": ASK, "tools": [WEATHER], "tool_choice": "required", "max_tokens": 12, "seed": 1}
    (choice,) = post(client, CHAT, **body)["choices"]
    assert choice["finish_reason"] == "length"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "ping"}}])
def test_wherever_a_forced_call_is_cut_no_half_of_it_is_content(choice):
    said = '[{"name": "ping", "arguments": {}}, {"name": "ping", "arguments": {}}]' if choice == "required" else "{}"
    with served(scripted_llm({"<assistant>": said})) as client:
        for length in range(1, len(said) + 1):
            body = {"messages": ASK, "tools": [PING], "tool_choice": choice, "temperature": 0, "max_tokens": length}
            (plain,) = post(client, CHAT, **body)["choices"]
            assert not plain["message"]["content"]
            assert plain["finish_reason"] == ("tool_calls" if length == len(said) else "length")
            calls = plain["message"].get("tool_calls", [])
            assert {call["function"]["name"] for call in calls} <= {"ping"}
            assert len(calls) == (1 if choice != "required" else said[:length].count('ping"'))
            chunks = [chunk["choices"][0] for chunk in events(client, CHAT, **body)]
            streamed = joined([piece for chunk in chunks for piece in chunk["delta"].get("tool_calls", ())])
            assert [call["function"] for call in streamed] == [call["function"] for call in calls]
            assert not any(chunk["delta"].get("content") for chunk in chunks)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_forced_call_that_a_stop_string_cuts_off_is_not_taken_for_a_whole_one(client, choice):
    body = {"messages": ASK, "tools": [WEATHER], "tool_choice": choice, "stop": ["days"], "max_tokens": 200, "seed": 1}
    (plain,) = post(client, CHAT, **body)["choices"]
    assert plain["message"]["tool_calls"] and plain["finish_reason"] == "stop"


SAID = '{"name": "weather", "%s": {"city": "Paris", "days": 3}}'
SHOWN = "{{ tools }}" + TEMPLATE


@pytest.mark.parametrize(
    ("template", "said", "text"),
    [
        ("<tool_call>" + SHOWN, "So: <tool_call>" + SAID % "arguments" + "</tool_call>", "So:"),
        ('{"name": function name, "parameters": object}' + SHOWN, SAID % "parameters", None),
    ],
)
def test_a_call_of_a_strict_function_obeys_its_schema(template, said, text):
    """What the model would rather write does not."""
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    with served(scripted_llm({"<assistant>": said}, template)) as client:
        body = {"messages": ASK, "temperature": 0}
        (choice,) = post(client, CHAT, tools=[WEATHER, PING], **body)["choices"]
        assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"])["city"] == "Paris"
        (choice,) = post(client, CHAT, tools=[strict, PING], **body)["choices"]
        (call,) = choice["message"]["tool_calls"]
        check(**call["function"])
        assert (choice["message"]["content"], choice["finish_reason"]) == (text, "tool_calls")


@pytest.mark.parametrize("between", ["</tool_call>\n<tool_call>", "; "])
def test_without_parallel_calls_a_text_ends_with_the_first(between):
    ping = '{"name": "ping", "%s": {"x": "::="}}'
    if between == "; ":
        template, said = '{"name": function name, "parameters": object}' + SHOWN, ping % "parameters"
        said = said + between + said
    else:
        template, call = "<tool_call>" + SHOWN, ping % "arguments"
        said = "<tool_call>" + call + between + call + "</tool_call>"
    described = {"type": "function", "function": {"name": "ping", "description": "a ::= b"}}
    with served(scripted_llm({"<assistant>": said}, template)) as client:
        both, one = (
            post(client, CHAT, messages=ASK, tools=[described], temperature=0, parallel_tool_calls=flag)
            for flag in (True, False)
        )
        assert len(both["choices"][0]["message"]["tool_calls"]) == 2
        assert len(one["choices"][0]["message"]["tool_calls"]) == 1
        assert one["usage"]["completion_tokens"] < both["usage"]["completion_tokens"] * 0.6


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize(
    ("field", "value", "fits"),
    [
        (
            "response_format",
            {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE, "strict": True}},
            None,
        ),
        ("structured_outputs", {"json": PLACE}, None),
        ("structured_outputs", {"json": json.dumps(PLACE)}, None),
        ("structured_outputs", {"regex": "[ab]{3,5}c"}, re.compile("[ab]{3,5}c")),
        ("structured_outputs", {"choice": ["yes", "no"]}, re.compile("yes|no")),
        ("structured_outputs", {"grammar": 'start: "x" "y"'}, re.compile("xy")),
    ],
)
def test_structured_outputs(client, path, field, value, fits):
    ask = {"messages": ASK} if path == CHAT else {"prompt": "the quick"}
    answer = post(client, path, **ask, **{field: value}, max_tokens=100, n=2, seed=5)
    for choice in answer["choices"]:
        text = choice["text"] if path == TEXT else choice["message"]["content"]
        assert choice["finish_reason"] == "stop"
        if fits is None:
            check("weather", text)
        else:
            assert fits.fullmatch(text)


def test_json_object(client):
    (choice,) = post(client, CHAT, messages=ASK, response_format={"type": "json_object"}, max_tokens=120, seed=2)[
        "choices"
    ]
    assert choice["message"]["content"].lstrip().startswith("{")
    if choice["finish_reason"] == "stop":
        assert isinstance(json.loads(choice["message"]["content"]), dict)
    plain = post(client, CHAT, messages=ASK, response_format={"type": "text"}, max_tokens=5, seed=2)
    assert plain["choices"] == post(client, CHAT, messages=ASK, max_tokens=5, seed=2)["choices"]


@pytest.mark.parametrize(
    "constraint",
    [
        {"regex": "("},
        {"json": {"type": "nothing"}},
        {"json": "{"},
        {"grammar": "start: x"},
        {"json": {"$ref": "http://x/y"}},
    ],
)
def test_a_constraint_that_makes_no_sense_is_refused(client, constraint):
    error = post(client, TEXT, 400, prompt="a", structured_outputs=constraint)["error"]
    assert error["type"] == "invalid_request_error" and len(error["message"]) > 20
    assert error["param"] == "structured_outputs" and error["message"].startswith("structured_outputs: ")


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("response_format", {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}}),
        ("tools", {"response_format": {"type": "text"}, "tool_choice": "required", "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {"type": "x"}}}]}),
    ],
)  # fmt: skip
def test_the_error_names_the_field_that_the_schema_is_from(client, param, fields):
    error = post(client, CHAT, 400, messages=[{"role": "user", "content": "Hi"}], **fields)["error"]
    assert error["param"] == param and error["message"].startswith(f"{param}: the json cannot be followed")
