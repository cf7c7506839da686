"""Streamed and plain answers (completion_answer.py, chat_answer.py): equal field by field, and what LLM itself says."""

import asyncio

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.api import events, post, served
from nano_llama import LLM, SamplingParams
from nano_llama.server.logprobs import TextLogprobs

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PROMPTS = ["the quick", "naïve café", "漢字 and 🙂", [84, 258, 5, 0, 7]]


@pytest.fixture(scope="module")
def client(folder):
    """With the CPU's kernels, whose bits do not depend on what else is in a batch."""
    with served(LLM(folder, device="cpu", num_threads=1)) as client:
        yield client


@pytest.fixture(scope="module")
def llm(folder):
    """The reference: the same weights, no server."""
    with LLM(folder, device="cpu", num_threads=1) as llm:
        yield llm


def sampling() -> st.SearchStrategy[dict]:
    """Parameters that both endpoints and SamplingParams have."""
    return st.fixed_dictionaries(
        {"seed": st.integers(0, 50), "max_tokens": st.integers(1, 12)},
        optional={
            "temperature": st.sampled_from([0, 0.7, 1, 1.5]),
            "top_p": st.sampled_from([0.5, 0.9, 1]),
            "top_k": st.sampled_from([-1, 0, 3, 40]),
            "min_p": st.sampled_from([0, 0.1]),
            "n": st.integers(1, 3),
            "presence_penalty": st.sampled_from([-1, 0.5]),
            "frequency_penalty": st.sampled_from([-1, 0.5]),
            "repetition_penalty": st.sampled_from([0.9, 1.3]),
            "logit_bias": st.sampled_from([{}, {"0": 5, "70": 3}]),
            "stop": st.sampled_from(["e", ["a", " t"], [" qu", "\N{REPLACEMENT CHARACTER}"]]),
            "stop_token_ids": st.sampled_from([[72], [70, 84, 99]]),
            "ignore_eos": st.booleans(),
            "min_tokens": st.integers(0, 5),
        },
    ).map(lambda asked: {**asked, "max_tokens": max(asked["max_tokens"], asked.get("min_tokens", 0))})


def params(asked: dict, **more) -> SamplingParams:
    bias = {"logit_bias": {int(token): bias for token, bias in asked.get("logit_bias", {}).items()} or None}
    return SamplingParams(**{**asked, **bias, **more})


def joined(chunks: list[dict]) -> list[dict]:
    """The choices that a stream's chunks of /v1/completions add up to."""
    choices: dict[int, dict] = {}
    for chunk in chunks:
        for new in chunk["choices"]:
            choice = choices.setdefault(new["index"], {"index": new["index"], "text": "", "logprobs": None})
            assert choice.get("finish_reason") is None, "nothing comes after the end"
            choice["text"] += new["text"]
            choice["finish_reason"] = new["finish_reason"]
            if new["logprobs"] is not None:
                old = choice["logprobs"] or {name: [] for name in new["logprobs"]}
                choice["logprobs"] = {name: old[name] + new["logprobs"][name] for name in old}
            for name in ("token_ids", "prompt_token_ids"):
                if name in new:
                    choice[name] = choice.get(name, []) + new[name]
    return [choices[index] for index in sorted(choices)]


def joined_chat(chunks: list[dict]) -> list[dict]:
    choices: dict[int, dict] = {}
    for chunk in chunks:
        for new in chunk["choices"]:
            delta = new["delta"]
            if new["index"] not in choices:
                assert delta == {"role": "assistant", "content": ""} and new["finish_reason"] is None
                message = {"role": "assistant", "content": "", "refusal": None}
                choices[new["index"]] = {"index": new["index"], "message": message, "logprobs": None}
                continue
            assert "role" not in delta
            choice = choices[new["index"]]
            choice["message"]["content"] += delta.get("content", "")
            choice["finish_reason"] = new["finish_reason"]
            if new["logprobs"] is not None:
                old = choice["logprobs"] or {"content": [], "refusal": None}
                choice["logprobs"] = {"content": old["content"] + new["logprobs"]["content"], "refusal": None}
    return [choices[index] for index in sorted(choices)]


@QUICK
@given(
    asked=sampling(),
    prompts=st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=3).filter(
        lambda some: len({*map(type, some)}) == 1
    ),
    logprobs=st.none() | st.integers(0, 4),
    echo=st.booleans(),
    ids=st.booleans(),
)
def test_completions(client, llm, asked, prompts, logprobs, echo, ids):
    body = {"prompt": prompts, "logprobs": logprobs, "echo": echo, "return_token_ids": ids, **asked}
    plain = post(client, TEXT, **body)
    chunks = events(client, TEXT, **body, stream_options={"include_usage": True})
    assert joined(chunks[:-1]) == plain["choices"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1]) and chunks[-1]["choices"] == []
    assert without_cache(chunks[-1]["usage"]) == without_cache(plain["usage"])

    outputs = llm.generate(prompts, params(asked, logprobs=logprobs))
    wanted = [(out, sample) for out in outputs for sample in out.outputs]
    assert [choice["index"] for choice in plain["choices"]] == list(range(len(wanted)))
    for choice, (out, sample) in zip(plain["choices"], wanted, strict=True):
        prompt = llm.tokenizer.decode(out.prompt_token_ids, skip_special=False) if echo else ""
        assert choice["text"] == prompt + sample.text
        assert choice["finish_reason"] == sample.finish_reason
        assert choice.get("token_ids") == (sample.token_ids if ids else None)
        if logprobs is None:
            assert choice["logprobs"] is None
            continue
        lists = choice["logprobs"]
        skipped = len(out.prompt_token_ids) if echo else 0
        assert lists["token_logprobs"][skipped:] == [next(iter(entry.values())).logprob for entry in sample.logprobs]
        assert [sorted(top.values()) for top in lists["top_logprobs"][skipped:]] == [
            sorted(value.logprob for value in entry.values()) for entry in sample.logprobs
        ]
    tokens = sum(len(sample.token_ids) for _, sample in wanted)
    assert plain["usage"]["completion_tokens"] == tokens
    assert plain["usage"]["prompt_tokens"] == sum(len(out.prompt_token_ids) for out in outputs)


@QUICK
@given(asked=sampling(), logprobs=st.none() | st.integers(0, 4), content=st.sampled_from(["Hi", "🙂 naïve"]))
def test_chats(client, llm, asked, logprobs, content):
    messages = [{"role": "developer", "content": "Be nice."}, {"role": "user", "content": content}]
    body = {"messages": messages, **asked}
    if logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": logprobs}
    plain = post(client, CHAT, **body)
    chunks = events(client, CHAT, **body, stream_options={"include_usage": True})
    assert joined_chat(chunks[:-1]) == plain["choices"]
    assert without_cache(chunks[-1]["usage"]) == without_cache(plain["usage"])

    (out,) = llm.chat(messages, params(asked, logprobs=logprobs))
    for choice, sample in zip(plain["choices"], out.outputs, strict=True):
        assert choice["message"]["content"] == sample.text
        assert choice["finish_reason"] == sample.finish_reason
        if logprobs is None:
            assert choice["logprobs"] is None
            continue
        for token, entry, number in zip(choice["logprobs"]["content"], sample.logprobs, sample.token_ids, strict=False):
            assert token["logprob"] == entry[number].logprob
            assert bytes(token["bytes"]) == llm.tokenizer.token_bytes(number)
            likeliest = sorted(value.logprob for value in entry.values() if value.rank <= logprobs)[::-1][:logprobs]
            assert [top["logprob"] for top in token["top_logprobs"]] == likeliest
        assert len(choice["logprobs"]["content"]) == len(sample.logprobs)


@pytest.mark.parametrize("stream", [False, True])
def test_the_logprobs_of_a_prompt_are_written_in_a_thread(client, monkeypatch, stream):
    """Of thousands of tokens they take a second, which no other request is to wait."""
    in_loop = []
    real = TextLogprobs.prompt

    def noted(*arguments):
        try:
            in_loop.append(asyncio.get_running_loop())
        except RuntimeError:
            in_loop.append(None)
        return real(*arguments)

    monkeypatch.setattr(TextLogprobs, "prompt", noted)
    answer = client.post(TEXT, json={"prompt": "the quick", "echo": True, "logprobs": 1, "stream": stream})
    assert answer.is_success and in_loop == [None]


def without_cache(usage: dict) -> dict:
    """The second of two equal requests finds the first one's prompt in the cache."""
    return {name: value for name, value in usage.items() if name != "prompt_tokens_details"}


def test_usage_in_every_chunk(client):
    body = {"prompt": "the quick", "max_tokens": 6, "ignore_eos": True, "return_token_ids": True}
    options = {"continuous_usage_stats": True}
    chunks = events(client, TEXT, **body, stream_options=options)
    tokens = [len(chunk["choices"][0]["token_ids"]) for chunk in chunks]  # several, if the reader was slow
    assert sum(tokens) == 6
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == np.cumsum(tokens).tolist()
    assert all("usage" not in chunk for chunk in events(client, TEXT, **body))
    last = events(client, TEXT, **body, stream_options={**options, "include_usage": True})[-1]
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 6


def test_the_chunks_of_a_stream_are_one_answer(client):
    chunks = events(client, CHAT, messages=[{"role": "user", "content": "Hi"}], max_tokens=5, n=2, ignore_eos=True)
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks}) == 1
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks].count("length") == 2
