"""The official client, unchanged, against a real server: usual calls, streams, parse(), and its classes of errors."""

import asyncio
import json

import pytest

from helpers.api import TOOL_TEMPLATE, listening, random_llm, scripted_llm
from nano_llama import SamplingParams

pytestmark = pytest.mark.server
openai = pytest.importorskip("openai")

HI = [{"role": "user", "content": "Hi"}]
SAID = 'So: <tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'


@pytest.fixture(scope="module")
def client():
    with listening(random_llm()) as address, openai.OpenAI(base_url=f"{address}/v1", api_key="any") as client:
        yield client


def test_completions(client, llm):
    answer = client.completions.create(model="tiny", prompt="the quick", max_tokens=6, seed=4, n=2, logprobs=2)
    out = llm.generate("the quick", SamplingParams(max_tokens=6, seed=4, n=2))[0]
    assert [choice.text for choice in answer.choices] == [sample.text for sample in out.outputs]
    assert answer.usage.completion_tokens == 12 and len(answer.choices[0].logprobs.tokens) == 6


def test_chat(client, llm):
    answer = client.chat.completions.create(model="tiny", messages=HI, max_completion_tokens=6, seed=4, temperature=0.8)
    out = llm.chat(HI, SamplingParams(max_tokens=6, seed=4, temperature=0.8))[0]
    assert answer.choices[0].message.content == out.text
    assert answer.choices[0].finish_reason == out.outputs[0].finish_reason


def test_stop(client, llm):
    text = llm.generate("the", SamplingParams(temperature=0, max_tokens=20))[0].text
    stop = text[5:7]
    answer = client.completions.create(model="tiny", prompt="the", temperature=0, max_tokens=20, stop=stop)
    assert answer.choices[0].text == text[: text.index(stop)] and answer.choices[0].finish_reason == "stop"


def test_streams(client):
    asked = {"model": "tiny", "messages": HI, "max_tokens": 8, "seed": 1, "logprobs": True}
    plain = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == plain.choices[0].message.content
    tokens = [token for c in chunks[:-1] if c.choices[0].logprobs for token in c.choices[0].logprobs.content]
    assert tokens == plain.choices[0].logprobs.content
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == plain.usage.total_tokens

    text = list(client.completions.create(model="tiny", prompt="the", max_tokens=5, stream=True))
    assert [chunk.choices[0].finish_reason for chunk in text][-1] in ("length", "stop")


def test_the_client_s_own_stream():
    with (
        listening(scripted_llm({"<assistant>": "Hello, 世界!"})) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="any") as client,
        client.chat.completions.stream(model="tiny", messages=HI, logprobs=True) as stream,
    ):
        events = list(stream)
        final = stream.get_final_completion().choices[0]
    assert (final.message.content, final.finish_reason) == ("Hello, 世界!", "stop")
    assert {"content.delta", "content.done", "logprobs.content.done"} <= {event.type for event in events}


def test_a_stream_that_is_left_frees_the_server(client):
    with client.chat.completions.create(model="tiny", messages=HI, stream=True) as stream:
        next(iter(stream))
    answer = client.chat.completions.create(model="tiny", messages=HI, max_tokens=1)
    assert answer.choices


def test_models(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").max_model_len == 256


def test_parameters_that_openai_does_not_have(client, llm):
    more = {"top_k": 3, "min_p": 0.1, "repetition_penalty": 1.2, "ignore_eos": True, "min_tokens": 2}
    answer = client.completions.create(model="tiny", prompt="the", max_tokens=5, seed=2, extra_body=more)
    assert answer.choices[0].text == llm.generate("the", SamplingParams(max_tokens=5, seed=2, **more))[0].text


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("NotFoundError", {"model": "gpt-4"}),
        ("BadRequestError", {"model": "tiny", "temperature": -1}),
        ("BadRequestError", {"model": "tiny", "max_tokens": 10_000}),
        ("BadRequestError", {"model": "tiny", "extra_body": {"unknown": 1}}),
    ],
)
def test_errors_have_the_client_s_classes(client, kind, asked):
    with pytest.raises(getattr(openai, kind)) as caught:
        client.chat.completions.create(messages=HI, **asked)
    body = caught.value.body
    assert set(body) == {"message", "type", "param", "code"} and body["message"] in str(caught.value)
    if asked.get("max_tokens"):
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


def test_tools():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
    tools = [{"type": "function", "function": {"name": "add", "parameters": schema}}]
    llm = scripted_llm({"<tool>3\n<assistant>": "It is 3.", "<assistant>": SAID}, TOOL_TEMPLATE)
    with listening(llm) as address, openai.OpenAI(base_url=f"{address}/v1", api_key="any") as client:
        first = client.chat.completions.create(model="tiny", messages=HI, tools=tools)
        message = first.choices[0].message
        (call,) = message.tool_calls
        assert (first.choices[0].finish_reason, message.content) == ("tool_calls", "So:")
        assert (call.function.name, json.loads(call.function.arguments)) == ("add", {"a": 1, "b": 2})
        with client.chat.completions.stream(model="tiny", messages=HI, tools=tools) as stream:
            (streamed,) = stream.get_final_completion().choices[0].message.tool_calls
        assert streamed.function.arguments == call.function.arguments
        said = [*HI, message, {"role": "tool", "tool_call_id": call.id, "content": "3"}]
        second = client.chat.completions.create(model="tiny", messages=said, tools=tools)
        assert (second.choices[0].message.content, second.choices[0].finish_reason) == ("It is 3.", "stop")


def test_parse(client):
    pytest.importorskip("llguidance")
    pydantic = pytest.importorskip("pydantic")

    class Trip(pydantic.BaseModel):
        sunny: bool
        cities: list[bool] = pydantic.Field(max_length=2)

    answer = client.chat.completions.parse(model="tiny", messages=HI, response_format=Trip, max_tokens=150, seed=3)
    assert isinstance(answer.choices[0].message.parsed, Trip)


async def ask_async(address: str) -> list[str]:
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="any") as client:
        asked = [
            client.completions.create(model="tiny", prompt="the", max_tokens=4, seed=seed, temperature=1)
            for seed in range(12)
        ]
        return [answer.choices[0].text for answer in await asyncio.gather(*asked)]


def test_many_at_once(llm):
    wanted = [llm.generate("the", SamplingParams(max_tokens=4, seed=seed))[0].text for seed in range(12)]
    with listening(random_llm()) as address:
        assert asyncio.run(ask_async(address)) == wanted
