"""Tool calls (tools.py, tool_calls.py, chat_answer.py): read from what a model writes, or forced by a constraint."""

import json

import pytest

from helpers.api import TEMPLATE, bpe, events, post, random_llm, scripted_llm, served
from nano_llama.server.schemas import ChatBody, Tool
from nano_llama.server.tool_calls import joined
from nano_llama.server.tools import calls_schema, tool_use

PATH = "/v1/chat/completions"
ASK = [{"role": "user", "content": "Add 1 and 2"}]
NUMBERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/$defs/number"}},
    "required": ["a", "b"],
    "additionalProperties": False,
    "$defs": {"number": {"enum": [2, 3]}},
}
ADD = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": NUMBERS}}
PING = {"type": "function", "function": {"name": "ping"}}
SHOWN = "{% for tool in tools or [] %}[{{ tool.function.name }}]{% endfor %}"
HERMES = SHOWN + "Answer with <tool_call>{...}</tool_call>\n" + TEMPLATE
LLAMA = SHOWN + 'Answer with {"name": function name, "parameters": dictionary}\n' + TEMPLATE
CALL = '{"name": "add", "arguments": {"a": 1, "b": 2}}'


@pytest.fixture(scope="module")
def hermes():
    said = "Let me add.\n<tool_call>\n" + CALL + "\n</tool_call>\n<tool_call>\n" + CALL + "\n</tool_call>"
    with served(scripted_llm({"<assistant>": said}, HERMES)) as client:
        yield client


def calls_in(message: dict) -> list[tuple]:
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in message["tool_calls"]]


def stream(client, **body) -> tuple[str, list[dict], str]:
    """(text, calls, finish_reason) that the chunks add up to."""
    chunks = [chunk["choices"][0] for chunk in events(client, PATH, **body)]
    text = "".join(chunk["delta"].get("content") or "" for chunk in chunks)
    pieces = [piece for chunk in chunks for piece in chunk["delta"].get("tool_calls", ())]
    return text, joined(pieces), chunks[-1]["finish_reason"]


def without_ids(calls: list[dict]) -> list[dict]:
    return [{name: value for name, value in call.items() if name != "id"} for call in calls]


def test_calls_that_the_model_decides_on(hermes):
    (choice,) = post(hermes, PATH, messages=ASK, tools=[ADD, PING])["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me add."
    assert calls_in(choice["message"]) == [("add", {"a": 1, "b": 2})] * 2
    assert len({call["id"] for call in choice["message"]["tool_calls"]}) == 2
    text, calls, reason = stream(hermes, messages=ASK, tools=[ADD, PING], tool_choice="auto")
    assert (text, reason) == ("Let me add.", "tool_calls")
    assert without_ids(calls) == without_ids(choice["message"]["tool_calls"])


def test_the_template_shows_the_tools(hermes):
    rendered = post(hermes, PATH + "/render", messages=ASK, tools=[ADD, PING])["prompt"]
    assert rendered.startswith("[add][ping]")


def test_without_parallel_calls_the_first_one_counts(hermes):
    (choice,) = post(hermes, PATH, messages=ASK, tools=[ADD], parallel_tool_calls=False)["choices"]
    assert len(choice["message"]["tool_calls"]) == 1 and choice["finish_reason"] == "tool_calls"


def test_tool_choice_none_leaves_the_text_alone(hermes):
    (choice,) = post(hermes, PATH, messages=ASK, tools=[ADD], tool_choice="none")["choices"]
    assert choice["message"]["content"].count("<tool_call>") == 2 and "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("max_tokens", [3, 20, 45, 62])
def test_a_call_that_max_tokens_cut_off_is_length(hermes, max_tokens):
    body = {"messages": ASK, "tools": [ADD], "max_tokens": max_tokens}
    (choice,) = post(hermes, PATH, **body)["choices"]
    assert choice["finish_reason"] == "length"
    text, calls, reason = stream(hermes, **body)
    assert reason == "length"
    assert text == (choice["message"]["content"] or "")
    assert without_ids(calls) == without_ids(choice["message"].get("tool_calls", []))


def test_llama_s_calls():
    said = '{"name": "add", "parameters": {"a": 1, "b": 2}}'
    with served(scripted_llm({"<assistant>": said}, LLAMA)) as client:
        (choice,) = post(client, PATH, messages=ASK, tools=[ADD])["choices"]
        assert calls_in(choice["message"]) == [("add", {"a": 1, "b": 2})] and choice["message"]["content"] is None


def test_an_answer_without_calls_is_text():
    with served(scripted_llm({"<assistant>": "It is 3. "}, HERMES)) as client:
        (choice,) = post(client, PATH, messages=ASK, tools=[ADD])["choices"]
        assert choice["message"] == {"role": "assistant", "content": "It is 3. ", "refusal": None}
        assert choice["finish_reason"] == "stop"


def test_what_a_template_does_not_say_is_refused():
    for template, says in ((TEMPLATE, "does not read them"), (SHOWN + TEMPLATE, "a format that is not read here")):
        with served(random_llm(bpe(chat_template=template))) as client:
            error = post(client, PATH, 400, messages=ASK, tools=[ADD])["error"]
            assert error["param"] == "tools" and says in error["message"] and error["code"] == "unsupported"


class Settings:
    max_schema_bytes = 10_000


class Service:
    settings = Settings()


def use_of(template: str | None = None, **fields):
    return tool_use(ChatBody.model_validate({"messages": ASK, **fields}), Service(), template)


def test_a_forced_call_is_a_constraint():
    named = {"type": "function", "function": {"name": "add"}}
    use = use_of(tools=[ADD, PING], tool_choice=named)
    assert use.constraint == {"json": NUMBERS} and use.shown is None and use.name == "add"
    assert use_of(HERMES, tools=[ADD], tool_choice=named).shown == [ADD]
    use = use_of(tools=[ADD, PING], tool_choice="required", parallel_tool_calls=False)
    assert use.constraint["json"]["maxItems"] == 1 and use.constraint["json"]["minItems"] == 1


@pytest.mark.server
def test_the_schema_of_forced_calls_accepts_what_the_functions_do():
    schema = calls_schema([Tool.model_validate(tool) for tool in (ADD, PING)], parallel=True)
    validator = pytest.importorskip("jsonschema_rs").validator_for(schema)
    add, ping = {"name": "add", "arguments": {"a": 1, "b": 2}}, {"name": "ping", "arguments": {}}
    assert validator.is_valid([add, ping, add])
    for wrong in ({**add, "name": "sub"}, {**ping, "arguments": {"x": 1}}, {**add, "arguments": {"a": 1, "b": 4}}):
        assert not validator.is_valid([wrong]), wrong
    assert not validator.is_valid([])


def test_tool_calls_that_the_template_does_not_read_are_refused():
    """The model would not see them: without content, templates fail in words of their own."""
    call = {"id": "1", "type": "function", "function": {"name": "ping", "arguments": "{}"}}
    said = [*ASK, {"role": "assistant", "content": None, "tool_calls": [call]}]
    result = {"role": "tool", "tool_call_id": "1", "content": "pong"}
    reading = TEMPLATE.replace("{{ message.content }}", "{{ message.content or message.tool_calls }}")
    with served(scripted_llm({"<tool>pong": "Fine."}, TEMPLATE)) as client:
        error = post(client, PATH, 400, messages=[*said, result])["error"]
        assert (error["param"], error["code"]) == ("messages[1].tool_calls", "unsupported")
        assert "template does not read tool calls" in error["message"]
    with served(scripted_llm({"<tool>pong\n<assistant>": "Fine."}, reading)) as client:
        (choice,) = post(client, PATH, messages=[*said, result])["choices"]
        assert choice["message"]["content"] == "Fine."
