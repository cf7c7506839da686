"""/v1/chat/completions and /render (chat.py, chat_answer.py): messages as clients send them, and the answers."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.api import TEMPLATE, post, random_llm, scripted_llm, served
from helpers.served import SOON, Served
from nano_llama import SamplingParams
from nano_llama.tokenizer import chat as chat_templates

CHAT, RENDER = "/v1/chat/completions", "/v1/chat/completions/render"
HI = [{"role": "user", "content": "Hi"}]
WITH_MOOD = "{{ mood }}:" + TEMPLATE


@pytest.fixture(scope="module")
def asked():
    with served(scripted_llm({"<assistant>Well": ", you.", "<assistant>": "Hello, 世界!"})) as client:
        yield client


def test_an_answer(asked):
    answer = post(asked, CHAT, model="tiny", messages=HI)
    assert answer["object"] == "chat.completion" and answer["id"].startswith("chatcmpl-")
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Hello, 世界!", "refusal": None}
    assert (choice["finish_reason"], choice["logprobs"]) == ("stop", None)


def test_an_answer_may_fill_the_context(client):
    usage = post(client, CHAT, messages=HI, ignore_eos=True)["usage"]
    assert usage["total_tokens"] == 256


def test_max_tokens_under_either_name(client):
    for name in ("max_tokens", "max_completion_tokens"):
        answer = post(client, CHAT, messages=HI, ignore_eos=True, **{name: 7})
        assert answer["usage"]["completion_tokens"] == 7 and answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool"])
def test_roles(client, role):
    text = post(client, RENDER, messages=[{"role": role, "content": "x"}, *HI])["prompt"]
    assert text == f"<{role}>x\n<user>Hi\n<assistant>"


def test_parts_of_text_are_joined(client):
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    assert post(client, RENDER, messages=[{"role": "user", "content": parts}])["prompt"] == "<user>a b\n<assistant>"


def test_render_is_what_the_model_reads(client, llm):
    messages = [{"role": "system", "content": "naïve"}, *HI]
    rendered = post(client, RENDER, messages=messages)
    assert rendered["prompt"] == llm.tokenizer.apply_chat_template(messages)
    assert rendered["prompt_token_ids"] == llm.tokenizer.encode_chat(messages)
    assert rendered["count"] == len(rendered["prompt_token_ids"]) and rendered["max_model_len"] == 256
    answer = post(client, CHAT, messages=messages, max_tokens=1, return_token_ids=True)
    assert answer["prompt_token_ids"] == rendered["prompt_token_ids"]


def test_special_tokens_that_a_user_types_are_text(client):
    rendered = post(client, RENDER, messages=[{"role": "user", "content": "<|endoftext|>"}])
    assert "<|endoftext|>" in rendered["prompt"] and 0 not in rendered["prompt_token_ids"]


def test_an_answer_is_continued_only_where_that_is_asked_for(asked):
    messages = [*HI, {"role": "assistant", "content": "Well"}]
    answer = post(asked, CHAT, messages=messages, continue_final_message=True)
    assert answer["choices"][0]["message"]["content"] == ", you."
    text = post(asked, RENDER, messages=messages)["prompt"]
    assert text == "<user>Hi\n<assistant>Well\n<assistant>"
    text = post(asked, RENDER, messages=messages, continue_final_message=True)["prompt"]
    assert text == "<user>Hi\n<assistant>Well"
    text = post(asked, RENDER, messages=messages, add_generation_prompt=False)["prompt"]
    assert text == "<user>Hi\n<assistant>Well\n"


def test_a_client_sends_back_the_message_that_it_got(asked):
    message = post(asked, CHAT, messages=HI)["choices"][0]["message"]
    whole = {**message, "annotations": [], "audio": None, "function_call": None, "tool_calls": None}
    text = post(asked, RENDER, messages=[*HI, whole, *HI])["prompt"]
    assert text == "<user>Hi\n<assistant>Hello, 世界!\n<user>Hi\n<assistant>"


def test_earlier_calls_reach_the_template_as_objects():
    template = (
        "{% for m in messages %}{% for call in m.tool_calls or [] %}"
        "{{ call.function.name }}{{ call.function.arguments.a }}{{ call.function.arguments | tojson }}"
        "{% endfor %}{{ m.content or '' }};{% endfor %}"
    )
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    messages = [
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [{**call, "index": 0}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "2", "name": "add"},
    ]
    with served(random_llm_with(template)) as client:
        assert post(client, RENDER, messages=messages)["prompt"] == 'Hi;add1{"a": 1};2;'


def random_llm_with(template):
    from helpers.api import bpe

    return random_llm(bpe(chat_template=template))


def test_template_variables_only_by_names_that_the_operator_lists():
    with served(random_llm_with(WITH_MOOD), chat_template_kwargs=("mood", "tools")) as client:
        text = post(client, RENDER, messages=HI, chat_template_kwargs={"mood": "glad"})["prompt"]
        assert text == "glad:<user>Hi\n<assistant>"
        for name in ("tools", "chat_template", "messages", "x"):
            error = post(client, CHAT, 400, messages=HI, chat_template_kwargs={name: "glad"})["error"]
            assert error["param"] == "chat_template_kwargs" and repr(name) in error["message"]


def test_a_model_without_a_template_says_so():
    with served(random_llm_with(None)) as client:
        error = post(client, CHAT, 400, messages=HI)["error"]
        assert error["code"] == "no_chat_template" and "/v1/completions" in error["message"]


def test_a_conversation_is_cut_only_where_that_is_asked_for(client, llm):
    ids = llm.tokenizer.encode_chat(HI)
    answer = post(client, CHAT, messages=HI, truncate_prompt_tokens=5, max_tokens=4, temperature=0)
    assert answer["usage"]["prompt_tokens"] == 5
    assert answer["usage"]["prompt_tokens_details"]["truncated_tokens"] == len(ids) - 5
    (out,) = llm.generate([ids[-5:]], SamplingParams(max_tokens=4, temperature=0))
    assert answer["choices"][0]["message"]["content"] == out.text


ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
WITH_LOOP = "{% if messages[0].content == 'loop' %}" + ENDLESS + "{% endif %}" + TEMPLATE


@pytest.mark.parametrize("path", [CHAT, RENDER, "/tokenize"])
def test_who_leaves_while_a_template_runs_is_not_waited_for(monkeypatch, path):
    started = []

    class Recorded(chat_templates.LimitedProcess):
        def __init__(self, *args):
            started.append(self)
            super().__init__(*args)

    monkeypatch.setattr(chat_templates, "LimitedProcess", Recorded)
    monkeypatch.setattr(chat_templates, "RENDER_SECONDS", 2 * SOON)
    with Served(load=lambda: random_llm_with(WITH_LOOP)) as server:
        assert server.ready.wait(SOON)
        for _ in range(9):
            with server.start(path, {"messages": [{"role": "user", "content": "loop"}]}):
                server.until(lambda: server.service.in_flight == 1)
            server.until(lambda: server.service.in_flight == 0)
        assert server.post("/v1/completions", {"prompt": "quick", "max_tokens": 1}).status == 200
        assert server.stats().steps == 1
    for process in started:
        process.popen.kill()  # or this process would wait for the loops at its end


def test_slow_templates_leave_threads_for_others(monkeypatch):
    monkeypatch.setattr(chat_templates, "RENDER_SECONDS", 1.5)
    with Served(load=lambda: random_llm_with(WITH_LOOP)) as server, ThreadPoolExecutor(7) as threads:
        assert server.ready.wait(SOON)
        loop = {"messages": [{"role": "user", "content": "loop"}]}
        slow = [threads.submit(server.post, CHAT, loop) for _ in range(7)]  # more than asyncio has threads here
        server.until(lambda: server.service.in_flight == 7)
        assert server.post("/tokenize", {"prompt": "quick"}).status == 200
        assert server.post("/v1/completions", {"prompt": "quick", "max_tokens": 1}).status == 200
        assert not any(future.done() for future in slow), "the quick ones did not wait for the slow ones"
        for future in slow:
            assert "longer than" in future.result().error["message"]


def test_logprobs_spell_the_content_byte_by_byte(asked):
    (choice,) = post(asked, CHAT, messages=HI, logprobs=True, top_logprobs=2)["choices"]
    *tokens, end = choice["logprobs"]["content"]
    assert bytes(byte for token in tokens for byte in token["bytes"]).decode() == choice["message"]["content"]
    assert end["token"] == "<|endoftext|>"
    assert all(len(token["top_logprobs"]) == 2 for token in tokens)
    assert tokens[0]["top_logprobs"][0] == {name: tokens[0][name] for name in ("token", "logprob", "bytes")}


def test_prompt_logprobs_of_a_conversation(client):
    answer = post(client, CHAT, messages=HI, prompt_logprobs=0, max_tokens=1)
    assert len(answer["prompt_logprobs"]) == answer["usage"]["prompt_tokens"]
    assert answer["prompt_logprobs"][0] is None and all(len(entry) == 1 for entry in answer["prompt_logprobs"][1:])
