"""Bodies that are nearly right, and those that schemathesis makes of our OpenAPI document: never a failure of ours.

No status of 500, no stream without its end, no block held afterwards (helpers/api.py), and each good request in between
gets its right answer.
"""

import json
import random
from typing import Any

import pytest

from helpers.api import TEMPLATE, bpe, listening, post, random_llm, served
from nano_llama import SamplingParams

pytestmark = pytest.mark.server

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}}}}]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
GOOD: dict[str, dict[str, Any]] = {
    "/v1/completions": {
        "prompt": "the quick", "max_tokens": 4, "temperature": 1, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "n": 2,
        "stop": ["x"], "seed": 3, "logprobs": 2, "echo": True, "logit_bias": {"5": 1}, "stop_token_ids": [3],
        "stream": False, "presence_penalty": 0.1, "frequency_penalty": 0.1, "repetition_penalty": 1.1, "min_tokens": 1,
        "ignore_eos": True, "add_special_tokens": True, "truncate_prompt_tokens": 3, "return_token_ids": True,
        "prompt_logprobs": None, "structured_outputs": None, "response_format": None, "stream_options": None,
    },
    "/v1/chat/completions": {
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "1", "content": "2"},
        ],
        "max_tokens": 4, "logprobs": True, "top_logprobs": 2, "tools": TOOLS, "tool_choice": "auto", "stop": "zz",
        "parallel_tool_calls": True, "continue_final_message": False, "add_generation_prompt": True, "n": 1,
        "stream": True, "stream_options": {"include_usage": True}, "response_format": {"type": "text"},
        "truncate_prompt_tokens": 20, "prompt_logprobs": None, "max_completion_tokens": 4, "structured_outputs": None,
    },
    "/v1/chat/completions/render": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "tools": TOOLS,
    },
    "/tokenize": {"prompt": "the", "add_special_tokens": False, "parse_special": True, "return_token_strs": True},
    "/detokenize": {"tokens": [1, 2, 3]},
}  # fmt: skip
STRANGE = [
    None, True, False, 0, 1, -1, 16, 17, 20, 21, 255, 256, 2**31, 2**63, 2**64, 10**400, 1e308, -0.0, 1.5,
    "", " ", "x", "\x00", "漢" * 50, "\ud800", "🙂" * 20, "<|endoftext|>", "</tool_call>", "[[[[[", "auto", "required",
    "none", [], {}, [[]], [None], [""], ["a", 1], ["a", "b"], [0], [299], [300], [5] * 255, [5] * 256, [[5], [6]],
    {"type": "text"}, {"type": "json_object"}, {"type": "json_schema", "json_schema": {"schema": {}}},
    {"json": {"properties": {"x": {"$ref": "#/$defs/y"}}}}, {"json": {}}, {"json": True}, {"json": "{}"},
    {"regex": "a+"}, {"regex": "(a+)+$"}, {"regex": "["}, {"choice": ["a", "b"]}, {"choice": []},
    {"grammar": 'start: "a"'}, {"grammar": "start: x"}, {"include_usage": True}, {"5": 100}, {"299": 1}, {"300": 1},
    {"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "g"}},
    [{"role": "user", "content": "x"}], [{"role": "assistant", "content": "x"}], [{"type": "text", "text": "x"}],
]  # fmt: skip


def changed(rng: random.Random, value: Any) -> Any:
    """The value with something in it replaced, left out or added."""
    if isinstance(value, dict) and value and rng.random() < 0.7:
        name = rng.choice(list(value))
        kind = rng.random()
        if kind < 0.1:
            return {other: value[other] for other in value if other != name}
        if kind < 0.2:
            return {**value, "extra": rng.choice(STRANGE)}
        return {**value, name: changed(rng, value[name])}
    if isinstance(value, list) and value and rng.random() < 0.6:
        place = rng.randrange(len(value))
        return [*value[:place], changed(rng, value[place]), *value[place + 1 :]]
    return rng.choice(STRANGE)


def body_for(rng: random.Random, path: str) -> dict[str, Any]:
    needed = ("prompt", "messages", "tokens")
    body: Any = {name: value for name, value in GOOD[path].items() if name in needed or rng.random() < 0.65}
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        body = changed(rng, body)
    return body


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_bodies_that_are_nearly_right(seed):
    rng = random.Random(seed)
    tokenizer = bpe(chat_template="{{ tools }}<tool_call>" + TEMPLATE)
    paths = [*GOOD, "/v1/completions", "/v1/chat/completions", "/v1/completions", "/v1/chat/completions"]
    statuses = set()
    good = {"prompt": "the quick", "temperature": 0, "max_tokens": 6}
    with random_llm(tokenizer) as llm, served(random_llm(tokenizer, max_num_seqs=8)) as client:
        right = llm.generate("the quick", SamplingParams(temperature=0, max_tokens=6))[0].text
        for number in range(1_000 if seed == 1 else 10_000):
            path = rng.choice(paths)
            body = body_for(rng, path)
            answer = client.post(path, content=json.dumps(body).encode())
            statuses.add(answer.status_code)
            assert answer.status_code in (200, 400, 404), (path, body, answer.text)
            if answer.status_code != 200:
                assert answer.json()["error"]["message"], (path, body)
            elif answer.headers["content-type"].startswith("text/event-stream"):
                assert answer.text.endswith("data: [DONE]\n\n"), (path, body, answer.text)
            if number % 50 == 0:
                assert post(client, "/v1/completions", **good)["choices"][0]["text"] == right
    assert {200, 400} <= statuses


def test_schemathesis():
    """Statuses and shapes are those of the document."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings

    with listening(random_llm(max_num_seqs=8)) as address:
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        judged = [
            schemathesis.checks.CHECKS.get_one(name)
            for name in (
                "not_a_server_error", "status_code_conformance", "content_type_conformance",
                "response_schema_conformance", "response_headers_conformance", "unsupported_method",
            )
        ]  # fmt: skip
        for found in schema.get_all_operations():
            operation = found.ok()

            @settings(
                max_examples=60 if operation.method == "post" else 5, deadline=None, database=None,
                suppress_health_check=list(HealthCheck), phases=[Phase.generate], derandomize=True,
            )  # fmt: skip
            @given(case=operation.as_strategy())
            def judge(case):
                case.validate_response(case.call(timeout=30), checks=judged)

            judge()
