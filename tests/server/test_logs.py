"""The log is JSON lines, knows each request by its id, holds no prompts, and stops nobody (logs.py)."""

import io
import json
import logging
import os

import pytest

from helpers.served import GatedRunner, Served
from nano_llama.server import logs
from nano_llama.server.logs import LogWriter, event, request_id

SECRET = "the prompt of somebody"


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("path", ["/test/plain", "/test/streamed"])
@pytest.mark.parametrize("log_prompts", [False, True])
def test_a_request_is_one_line_with_its_figures(path, log_prompts):
    stream = io.StringIO()
    with LogWriter(stream), Served(log_prompts=log_prompts) as served:
        assert served.ready.wait(10)
        served.runner.allow()
        answer = served.post(path, {"prompt": SECRET, "n": 2, "max_tokens": 3}, {"x-request-id": "mine-1"})
        assert answer.headers["x-request-id"] == "mine-1"
    [line] = [line for line in lines(stream) if line["event"] == "request"]
    assert line["request_id"] == "mine-1" and line["level"] == "info"
    assert (line["method"], line["path"], line["status"]) == ("POST", path, 200)
    assert (line["prompt_tokens"], line["completion_tokens"]) == (len(SECRET), 6)
    assert line["finish_reasons"] == ["length", "length"]
    assert 0 <= line["queue_seconds"] <= line["first_token_seconds"] <= line["seconds"]
    assert (SECRET in stream.getvalue()) is log_prompts


def test_a_bug_is_logged_with_its_traceback_and_the_client_gets_the_id():
    stream = io.StringIO()
    with LogWriter(stream), Served() as served:
        assert served.ready.wait(10)
        answer = served.post("/test/broken")
    assert answer.status == 500 and "secret" not in answer.body.decode()
    identity = answer.headers["x-request-id"]
    assert identity in answer.error["message"]
    [line] = [line for line in lines(stream) if line["level"] == "error"]
    assert line["request_id"] == identity and "a secret of the server" in line["traceback"]


def test_a_client_that_left_is_in_the_log():
    stream = io.StringIO()
    with LogWriter(stream), Served(GatedRunner()) as served:
        assert served.ready.wait(10)
        raw = served.start("/test/plain", {"prompt": "a"})
        served.until(lambda: served.stats().busy)
        raw.close()
        served.until(lambda: not served.service.in_flight)
    [line] = [line for line in lines(stream) if line["event"] == "request"]
    assert line["status"] == 499 and line["prompt_tokens"] == 1


@pytest.mark.parametrize("given", [None, "", "a b", 'x"', "line\nbreak", "x" * 129, "é"])
def test_strange_ids_are_replaced(given):
    assert request_id(given) != given and request_id(given) != request_id(given)


def test_a_full_disk_and_a_closed_pipe_stop_nobody():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    with LogWriter(Full()) as writer:
        event("one")
        event("two")
    assert writer.lost == 2


def test_a_reader_that_does_not_read_stops_nobody(monkeypatch):
    monkeypatch.setattr(logs, "QUEUE_LENGTH", 10)
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    with LogWriter(stream) as writer:
        for _ in range(1000):
            event("line", fill="x" * 1000)
        assert writer.lost > 0
    os.read(reading, 1_000_000)  # the thread that waits goes on
    os.close(reading)


def test_quiet_leaves_warnings():
    stream = io.StringIO()
    with LogWriter(stream, quiet=True):
        event("request")
        event("careful", logging.WARNING)
    assert [line["event"] for line in lines(stream)] == ["careful"]
