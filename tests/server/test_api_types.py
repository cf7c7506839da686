"""Answers and chunks held against the official client's types: strictly, and without a field that they do not know."""

import pytest

from helpers.api import events, post, served

pytestmark = pytest.mark.server
types = pytest.importorskip("openai.types")
chat = pytest.importorskip("openai.types.chat")

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
HI = [{"role": "user", "content": "Hi"}]


def check(kind, answer: dict) -> None:
    no_extras(kind.model_validate(answer, strict=True))


def no_extras(value) -> None:
    if isinstance(value, list):
        for item in value:
            no_extras(item)
    elif hasattr(value, "model_fields_set"):
        assert not value.model_extra, (type(value).__name__, value.model_extra)
        for name in type(value).model_fields:
            no_extras(getattr(value, name))


@pytest.mark.parametrize("more", [{}, {"n": 3}, {"logprobs": 3}, {"stop": "e"}, {"echo": True}, {"max_tokens": 60}])
def test_completions(client, more):
    body = {"prompt": "the quick", "max_tokens": 8, "seed": 2, **more}
    check(types.Completion, post(client, TEXT, **body))
    for chunk in events(client, TEXT, **body, stream_options={"include_usage": True}):
        for choice in chunk["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"  # the type has no null; OpenAI's streams do
        check(types.Completion, chunk)


def test_an_echoed_prompt_has_no_first_logprob(client):
    """The type says numbers; OpenAI's own answers begin with null."""
    answer = post(client, TEXT, prompt="the quick", echo=True, logprobs=1)
    lists = answer["choices"][0]["logprobs"]
    for name in ("token_logprobs", "top_logprobs"):
        assert lists[name].pop(0) is None
    check(types.Completion, answer)


@pytest.mark.parametrize(
    "more", [{}, {"n": 3}, {"logprobs": True}, {"logprobs": True, "top_logprobs": 4}, {"max_completion_tokens": 60}]
)
def test_chats(client, more):
    body = {"messages": HI, "max_completion_tokens": 8, "seed": 2, **more}
    check(chat.ChatCompletion, post(client, CHAT, **body))
    for chunk in events(client, CHAT, **body, stream_options={"include_usage": True}):
        check(chat.ChatCompletionChunk, chunk)


def test_tool_calls():
    from helpers.api import TEMPLATE, scripted_llm

    template = "{{ tools }}<tool_call>" + TEMPLATE
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    said = 'So: <tool_call>{"name": "f", "arguments": {"x": [1, 2]}}</tool_call>'
    with served(scripted_llm({"<assistant>": said}, template)) as client:
        body = {"messages": HI, "tools": [tool]}
        answer = post(client, CHAT, **body)
        assert answer["choices"][0]["message"]["tool_calls"]
        check(chat.ChatCompletion, answer)
        for chunk in events(client, CHAT, **body):
            check(chat.ChatCompletionChunk, chunk)


def test_models(client):
    listed = client.get("/v1/models").json()
    for model in [client.get("/v1/models/tiny").json(), *listed["data"]]:
        for name in ("parent", "max_model_len", "meta"):  # vLLM's and llama-server's fields
            model.pop(name)
        check(types.Model, model)
