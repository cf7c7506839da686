"""Whole and streamed answers; clients that leave, in every phase; failures amid a stream (streaming.py)."""

import contextlib
import json
import socket
import struct
import time

import pytest

from helpers.served import GatedRunner, Served, read_all, read_until, until

PROMPT = "tell me"


@pytest.fixture
def served():
    with Served(GatedRunner(script={PROMPT: "grüße €!"})) as served:
        assert served.ready.wait(10)
        yield served


def events(body: bytes) -> list[str]:
    assert body.isascii()
    lines = body.decode().split("\n\n")
    assert lines.pop() == ""
    assert all(line.startswith("data: ") for line in lines)
    return [line.removeprefix("data: ") for line in lines]


def test_a_stream_brings_what_a_plain_answer_does(served):
    served.runner.allow()
    asked = {"prompt": PROMPT, "max_tokens": 12}
    answer = served.post("/test/streamed", asked)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, usage, done = events(answer.body)
    assert done == "[DONE]" and json.loads(usage) == {"usage": "last"}
    text = "".join(json.loads(chunk)["text"] for chunk in chunks)
    assert text.startswith("grüße €!")
    assert text == served.post("/test/plain", asked).json["text"]


def test_samples_are_told_apart(served):
    served.runner.allow()
    *chunks, _, _ = events(served.post("/test/streamed", {"prompt": PROMPT, "n": 2, "max_tokens": 3}).body)
    assert sorted(json.loads(chunk)["index"] for chunk in chunks) == [0, 0, 0, 1, 1, 1]


def test_each_step_s_tokens_come_at_once(served):
    raw = served.start("/test/streamed", {"prompt": PROMPT, "max_tokens": 5})
    for character in "grü":
        served.runner.allow(len(character.encode()))
        assert json.dumps(character).encode() in read_until(raw, json.dumps(character).encode())
    raw.close()


@pytest.mark.parametrize("path", ["/test/plain", "/test/streamed"])
@pytest.mark.parametrize("phase", ["queue", "prefill", "decode"])
@pytest.mark.parametrize("way", ["close", "reset", "half-close"])
def test_a_client_that_leaves_frees_its_blocks_within_a_step(served, path, phase, way):
    others = [
        served.start("/test/plain", {"prompt": "x" * 40, "max_tokens": 60}) for _ in range(2 * (phase == "queue"))
    ]
    until(lambda: served.stats().running + served.stats().waiting == len(others))
    if others:
        served.runner.allow(1)
        until(lambda: served.stats().running == 2)
    raw = served.start(path, {"prompt": PROMPT, "max_tokens": 100})
    until(lambda: served.stats().running + served.stats().waiting == len(others) + 1)
    if phase == "prefill":
        until(lambda: served.stats().running == 1)
    if phase == "decode":
        served.runner.allow(3)
        until(lambda: served.stats().generation_tokens == 3)
    leave(raw, way)
    until(lambda: not served.service.running or len(served.service.running) == len(others))
    for other in others:
        leave(other, "close")
    until(lambda: not served.service.running)
    served.runner.allow(1)  # the step that was running
    until(lambda: served.stats().blocks_held == 0 and not served.stats().busy)
    assert served.metric("aborted_total", phase=phase) == 1
    assert served.metric("request_success_total", finished_reason="length") is None


def leave(raw: socket.socket, way: str) -> None:
    if way == "half-close":
        raw.shutdown(socket.SHUT_WR)
        return
    if way == "reset":
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


def test_a_client_that_leaves_with_a_second_request_on_the_line_is_noticed(served):
    raw = served.start("/test/plain", {"prompt": PROMPT, "max_tokens": 100})
    until(lambda: served.stats().running + served.stats().waiting == 1)
    raw.sendall(b"GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n")
    raw.close()
    until(lambda: not served.service.running)


def test_a_failure_amid_a_stream_is_an_error_and_no_done(served):
    served.runner.allow()
    answer = served.post("/test/streamed", {"prompt": PROMPT, "fail": True})
    [last] = events(answer.body)
    error = json.loads(last)["error"]
    assert error["type"] == "server_error" and answer.headers["x-request-id"] in error["message"]
    assert "secret" not in last
    until(lambda: served.stats().blocks_held == 0)


def test_a_step_that_fails_fails_its_requests_and_no_others(served):
    raw = served.start("/test/streamed", {"prompt": PROMPT})
    until(lambda: served.stats().busy)
    served.runner.failure = RuntimeError("the step broke")
    served.runner.allow()
    received = read_until(raw, b"0\r\n\r\n")
    assert b'"error"' in received and b"[DONE]" not in received
    assert served.post("/test/plain", {"prompt": PROMPT, "max_tokens": 4}).json["text"] == "grü"


@pytest.mark.parametrize("path", ["/test/plain", "/test/streamed"])
def test_broken_logits_are_an_error_and_no_success(served, path):
    served.runner.broken_logits = True
    served.runner.allow()
    answer = served.post(path, {"prompt": PROMPT})
    assert answer.status == (500 if path == "/test/plain" else 200)
    assert b'"error"' in answer.body and b"[DONE]" not in answer.body
    assert served.post("/test/plain", {"prompt": PROMPT, "max_tokens": 4}).json["text"] == "grü"
    until(lambda: served.stats().blocks_held == 0)


@pytest.mark.parametrize("days", [-1000, 1000])
def test_the_wall_clock_may_jump(served, monkeypatch, days):
    raw = served.start("/test/streamed", {"prompt": PROMPT, "max_tokens": 4})
    until(lambda: served.stats().busy)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86_400 * days)
    served.runner.allow()
    assert b"[DONE]" in read_until(raw, b"0\r\n\r\n")
    assert served.get("/health").status == 200


def test_a_reader_that_does_not_read_is_cut_off():
    with Served(GatedRunner(max_position_embeddings=4096), send_seconds=0.3) as served, contextlib.ExitStack() as stack:
        assert served.ready.wait(10)
        raw = socket.socket()
        stack.enter_context(raw)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", served.port))
        body = json.dumps({"prompt": PROMPT, "max_tokens": 4000, "fill": 50_000}).encode()
        raw.sendall(b"POST /test/streamed HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        served.runner.allow()
        until(lambda: served.metric("aborted_total", phase="decode") == 1)
        until(lambda: served.stats().blocks_held == 0)
        assert served.stats().generation_tokens < 4000
        raw.settimeout(10)
        assert b"[DONE]" not in read_all(raw)


def test_token_intervals_are_measured_and_the_request_is_counted(served):
    served.runner.allow()
    served.post("/test/plain", {"prompt": PROMPT, "max_tokens": 6, "n": 2})
    assert served.metric("inter_token_latency_seconds_count") == 10
    assert served.metric("request_success_total", finished_reason="length") == 2
    assert served.metric("request_generation_tokens_sum") == 12
    assert served.metric("request_max_num_generation_tokens_sum") == 6
    assert served.metric("request_prompt_tokens_sum") == len(PROMPT)
    assert served.metric("time_to_first_token_seconds_count") == 1
