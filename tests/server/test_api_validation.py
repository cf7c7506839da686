"""Wrong bodies (validation.py, schemas.py, parameters.py): a 400 that names the field, and says what it must be."""

import pytest

from helpers.api import post, random_llm, served

ASK = [{"role": "user", "content": "hello"}]
TEXT, CHAT, TOKENIZE = "/v1/completions", "/v1/chat/completions", "/tokenize"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def client():
    with served(random_llm(), max_choices=4, max_prompts=3, max_prompt_characters=100, max_schema_bytes=200) as client:
        yield client


def wrong(client, path, param, says, **body):
    status = 404 if says == "is not served here" else 400
    error = post(client, path, status, **body)["error"]
    assert error["param"] == param, error
    assert says in error["message"], error
    assert error["type"] == "invalid_request_error"
    return error


@pytest.mark.parametrize(
    ("field", "value", "param", "says"),
    [
        ("temperature", "hot", "temperature", "must be a number"),
        ("temperature", -1, "temperature", "at least 0"),
        ("top_p", 0, "top_p", "above 0"),
        ("top_p", 1.5, "top_p", "at most 1"),
        ("top_k", 1.5, "top_k", "whole number"),
        ("n", True, "n", "whole number"),
        ("n", 0, "n", "at least 1"),
        ("n", 5, "n", "max_choices"),
        ("max_tokens", "9", "max_tokens", "whole number"),
        ("max_tokens", 0, "max_tokens", "echo"),
        ("presence_penalty", 2.1, "presence_penalty", "at most 2"),
        ("repetition_penalty", 0, "repetition_penalty", "above 0"),
        ("logit_bias", {"a": 1}, "logit_bias.a", "pattern"),
        ("logit_bias", {"1": 101}, "logit_bias.1", "at most 100"),
        ("logit_bias", {str(i): 0 for i in range(1025)}, "logit_bias", "max_logit_bias"),
        ("seed", 2**64, "seed", "below"),
        ("stop", [""], "stop[0]", "at least 1 character"),
        ("stop", 3, "stop", "string or a list"),
        ("stop", ["x"] * 17, "stop", "max_stop_strings"),
        ("stop", "x" * 1025, "stop", "max_stop_characters"),
        ("stop_token_ids", [-1], "stop_token_ids[0]", "at least 0"),
        ("stream", "yes", "stream", "true or false"),
        ("stream_options", {"include_usage": True}, "stream_options", "stream=true"),
        ("logprobs", 21, "logprobs", "max_logprobs"),
        ("prompt_logprobs", 21, "prompt_logprobs", "max_logprobs"),
        ("prompt", 7, "prompt", "must be a string, a list"),
        ("prompt", None, "prompt", "must be a string"),
        ("prompt", [], "prompt", "at least 1"),
        ("prompt", [[]], "prompt[0]", "at least 1"),
        ("prompt", ["a", 3], "prompt[1]", "must be a string"),
        ("prompt", [1, "a"], "prompt[1]", "whole number"),
        ("prompt", ["a"] * 4, "prompt", "max_prompts"),
        ("prompt", "a" * 101, "prompt", "max_prompt_characters"),
        ("prompt", "", None, "empty"),
        ("prompt", [300], None, "not a token id"),
        ("stop_token_ids", [300], None, "not a token id"),
        ("suffix", "end", "suffix", "not supported"),
        ("best_of", 2, "best_of", "not supported"),
        ("guided_json", {}, "guided_json", "response_format"),
        ("store", True, "store", "store=true must be false"),
        ("model", "gpt-4", "model", "is not served here"),
        ("max_tokns", 3, "max_tokns", "Did you mean max_tokens?"),
        ("messages", ASK, "messages", "not known"),
        ("response_format", {"type": "xml"}, "response_format.type", "json_schema"),
        ("response_format", {"type": "json_schema"}, "response_format.json_schema", "needs json_schema"),
        ("structured_outputs", {}, "structured_outputs", "0 constraints"),
        ("structured_outputs", {"regex": "a", "choice": ["a"]}, "structured_outputs", "2 constraints"),
        ("structured_outputs", {"json": 3}, "structured_outputs.json", "JSON schema"),
        ("structured_outputs", {"regex": "a" * 200}, "structured_outputs", "max_schema_bytes"),
        ("truncate_prompt_tokens", 0, "truncate_prompt_tokens", "at least 1"),
    ],
)
def test_a_wrong_field_of_a_completion_is_named(client, field, value, param, says):
    wrong(client, TEXT, param, says, **{"prompt": "the", field: value})


@pytest.mark.parametrize(
    ("field", "value", "param", "says"),
    [
        ("messages", "hi", "messages", "must be a list"),
        ("messages", [], "messages", "at least 1"),
        ("messages", ["hi"], "messages[0]", "must be an object"),
        ("messages", [{"content": "x"}], "messages[0].role", "is missing"),
        ("messages", [{"role": "user"}], None, "content"),
        ("messages", [{"role": "wizard", "content": "x"}], None, "wizard"),
        ("messages", [{"role": "user", "content": 3}], "messages[0].content", "must be a string, or a list of parts"),
        ("messages", [{"role": "user", "content": ["x"]}], "messages[0].content[0]", "must be an object"),
        (
            "messages",
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}]}],
            "messages[0].content[1].image_url.url",
            "is missing",
        ),
        ("messages", [{"role": "user", "content": "x", "mood": "good"}], "messages[0].mood", "not known"),
        ("messages", [{"role": "user", "content": "x" * 101}], "messages", "max_prompt_characters"),
        (
            "messages",
            [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{"}}]}],
            "messages[0].tool_calls[0].function.arguments",
            "not valid JSON",
        ),
        (
            "messages",
            [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "[" * 9999}}]}],
            "messages[0].tool_calls[0].function.arguments",
            "max_json_depth",
        ),
        ("max_tokens", 0, "max_tokens", "at least 1"),
        ("top_logprobs", 3, "top_logprobs", "logprobs=true"),
        ("logprobs", 3, "logprobs", "true or false"),
        ("modalities", ["audio"], "modalities[0]", 'must be "text"'),
        ("functions", [], "functions", "Use tools"),
        ("reasoning_effort", "low", "reasoning_effort", "not supported"),
        ("chat_template", "{{ 1 }}", "chat_template", "not supported"),
        ("chat_template_kwargs", {"mood": 1}, "chat_template_kwargs", "'mood'"),
        ("tools", [], "tools", "at least 1"),
        ("tools", [TOOL], "tools", "does not read them"),
        ("tool_choice", "auto", "tool_choice", "needs tools"),
        ("tool_choice", "maybe", "tool_choice", '"required"'),
        ("parallel_tool_calls", False, "parallel_tool_calls", "needs tools"),
    ],
)
def test_a_wrong_field_of_a_chat_is_named(client, field, value, param, says):
    wrong(client, CHAT, param, says, **{"messages": ASK, field: value})


def test_fields_that_contradict_each_other(client):
    wrong(client, CHAT, "max_completion_tokens", "contradict", messages=ASK, max_tokens=3, max_completion_tokens=4)
    post(client, CHAT, messages=ASK, max_tokens=3, max_completion_tokens=3)
    schema = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}
    wrong(
        client,
        TEXT,
        "structured_outputs",
        "both",
        prompt="a",
        response_format=schema,
        structured_outputs={"regex": "a"},
    )
    wrong(client, CHAT, None, "exclude", messages=ASK, add_generation_prompt=True, continue_final_message=True)
    wrong(client, TEXT, "prompt_logprobs", "Leave", prompt="a", echo=True, logprobs=1, prompt_logprobs=1)
    wrong(client, TEXT, "prompt_logprobs", "not streamed", prompt="a", prompt_logprobs=1, stream=True)


def test_tools_that_contradict_each_other(client):
    named = {"type": "function", "function": {"name": "g"}}
    wrong(client, CHAT, "tool_choice", "'g'", messages=ASK, tools=[TOOL], tool_choice=named)
    wrong(client, CHAT, "tools", "one name", messages=ASK, tools=[TOOL, TOOL], tool_choice="required")
    wrong(
        client, CHAT, "response_format", "exclude", messages=ASK, tools=[TOOL], tool_choice="required",
        response_format={"type": "json_object"},
    )  # fmt: skip


def test_tokenize_wants_a_text_or_a_conversation(client):
    wrong(client, TOKENIZE, "prompt", "one of them")
    wrong(client, TOKENIZE, "prompt", "one of them", prompt="a", messages=ASK)
    wrong(client, TOKENIZE, "add_generation_prompt", "needs messages", prompt="a", add_generation_prompt=True)
    wrong(client, TOKENIZE, "parse_special", "needs prompt", messages=ASK, parse_special=True)
    wrong(client, "/detokenize", "tokens", "not a token id", tokens=[300])


def test_a_prompt_that_does_not_fit_has_the_three_numbers(client):
    error = post(client, TEXT, 400, prompt=[5] * 200, max_tokens=57)["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")
    assert all(number in error["message"] for number in ("200", "57", "256"))
    assert post(client, TEXT, prompt=[5] * 200, max_tokens=56, ignore_eos=True)["usage"]["total_tokens"] == 256
    assert post(client, TEXT, 400, prompt=[5] * 256)["error"]["code"] == "context_length_exceeded"


def test_null_is_as_good_as_absent(client):
    nulls = dict.fromkeys(("temperature", "top_p", "n", "stop", "seed", "logit_bias", "stream", "user", "suffix"))
    plain = post(client, TEXT, prompt="the", temperature=0)
    assert post(client, TEXT, prompt="the", **{**nulls, "temperature": 0})["choices"] == plain["choices"]


def test_what_changes_nothing_is_accepted(client):
    post(
        client, TEXT, prompt="the", user="me", metadata={"a": "b"}, store=False, service_tier="auto",
        safety_identifier="x", prompt_cache_key="y",
    )  # fmt: skip


def test_unknown_fields_are_ignored_where_the_operator_says_so():
    with served(random_llm(), ignore_unknown_fields=True) as client:
        post(client, TEXT, prompt="the", max_tokns=3)
        wrong(client, TEXT, "best_of", "not supported", prompt="the", best_of=3)


def test_a_body_is_json_whatever_its_content_type_says(client):
    """As curl -d sends it."""
    for kind in ("application/x-www-form-urlencoded", "application/json; charset=utf-8", ""):
        answer = client.post(TEXT, content=b'{"prompt": "a"}', headers={"content-type": kind})
        assert answer.is_success, answer.text
    assert client.post(TEXT, content=b"prompt=a").json()["error"]["code"] == "invalid_json"
