"""Deadlines and limits of connections, and what is not HTTP (protocol.py)."""

import contextlib
import json
import re
import socket
import time

import pytest

from helpers.served import Served, read_all, read_until, until
from nano_llama.server import protocol

HEAD = b"GET /version HTTP/1.1\r\nhost: localhost\r\n"


@pytest.fixture
def quick():
    with Served(header_seconds=0.2, body_seconds=0.2, keep_alive_seconds=1.0) as served:
        assert served.ready.wait(10)
        yield served


def error_of(received: bytes) -> tuple[int, dict]:
    """The status and error of one whole answer."""
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    assert length and int(length[1]) == len(body)
    return int(head.split()[1]), json.loads(body)["error"]


@pytest.mark.parametrize("sent", [b"", b"G", HEAD], ids=["nothing", "a letter", "half the headers"])
def test_headers_have_a_deadline(quick, sent):
    status, error = error_of(read_all(quick.connect(sent)))
    assert (status, error["code"]) == (408, "request_timeout") and "header_seconds" in error["message"]
    assert quick.metric("rejected_total", reason="request_timeout") == 1


def test_one_byte_at_a_time_does_not_extend_it(quick):
    raw, began = quick.connect(), time.monotonic()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for byte in b"GET / HTTP/1.1\r\nx: " + b"a" * 1000:
            raw.sendall(bytes([byte]))
            time.sleep(0.02)
    assert time.monotonic() - began < 0.02 * 1000


def test_a_body_has_a_deadline_and_its_handler_ends(quick):
    raw = quick.connect(b'POST /test/plain HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{"a"')
    status, error = error_of(read_all(raw))
    assert status == 408 and "body_seconds" in error["message"]
    until(lambda: quick.service.in_flight == 0)


def test_a_second_request_on_a_connection_has_its_own_deadline(quick):
    raw = quick.connect(HEAD + b"\r\n")
    assert read_until(raw, b"}").startswith(b"HTTP/1.1 200")
    time.sleep(0.4)  # longer than header_seconds: nothing is awaited between requests
    raw.sendall(HEAD + b"\r\n")
    assert read_until(raw, b"}").startswith(b"HTTP/1.1 200")
    raw.sendall(HEAD)
    assert error_of(read_all(raw))[0] == 408


def test_an_idle_connection_is_closed(quick):
    raw = quick.connect(HEAD + b"\r\n")
    read_until(raw, b"}")
    assert raw.recv(1) == b""


def test_a_slow_answer_has_no_deadline_of_ours(quick):
    raw = quick.start("/test/plain", {"prompt": "a", "max_tokens": 2})
    until(lambda: quick.stats().busy)
    time.sleep(0.5)
    quick.runner.allow()
    assert read_until(raw, b"}").startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),  # TLS
        (b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"x: " + b"a" * 20_000, 431),
        (HEAD + b"x-long: " + b"a" * 20_000 + b"\r\n\r\n", 431),  # at once, so that h11 takes it
        (b"POST /test/plain HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", 400),
    ],
)
def test_what_is_not_http_is_refused(quick, sent, status):
    raw = quick.connect(sent)
    raw.shutdown(socket.SHUT_WR) if status == 431 else None
    assert int(read_all(raw).split()[1]) == status
    assert quick.get("/health").status == 200


def test_all_connections_busy(quick=None):
    with Served(max_connections=2) as served:
        assert served.ready.wait(10)
        busy = [served.start("/test/plain", {"prompt": "a"}) for _ in range(2)]
        until(lambda: served.service.in_flight == 2)
        status, error = error_of(read_all(served.connect(HEAD + b"\r\n")))
        assert (status, error["code"]) == (503, "service_unavailable") and "max_connections" in error["message"]
        served.runner.allow()
        assert all(read_until(raw, b"}").startswith(b"HTTP/1.1 200") for raw in busy)


def test_idle_connections_make_room():
    """A thousand connections that say nothing do not keep the next client out; a busy one is left alone."""
    with Served(max_connections=8) as served, contextlib.ExitStack() as stack:
        assert served.ready.wait(10)
        busy = stack.enter_context(served.start("/test/plain", {"prompt": "a", "max_tokens": 3}))
        until(lambda: served.service.in_flight == 1)
        for _ in range(100):
            stack.enter_context(served.connect())
        assert served.get("/health").status == 200
        assert len(served.server.server_state.connections) <= 8
        served.runner.allow()
        assert read_until(busy, b"}").startswith(b"HTTP/1.1 200")


def test_connections_per_address_and_loopback_excepted(monkeypatch):
    with Served(max_connections_per_address=2) as served, contextlib.ExitStack() as stack:
        assert served.ready.wait(10)
        for _ in range(4):
            stack.enter_context(served.connect())
        assert served.get("/health").status == 200
        monkeypatch.setattr(protocol, "is_loopback", lambda address: False)
        status, error = error_of(read_all(served.connect(HEAD + b"\r\n")))
        assert status == 503 and "max_connections_per_address" in error["message"]


def test_pipelined_requests_are_answered_in_order(quick):
    quick.runner.allow()
    body = json.dumps({"prompt": "a", "max_tokens": 2}).encode()
    first = b"POST /test/plain HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    raw = quick.connect(first + HEAD + b"connection: close\r\n\r\n")
    received = read_all(raw)
    assert received.count(b"HTTP/1.1 200") == 2
    assert received.index(b"tokens") < received.index(b"version")


def test_expect_100_continue(quick):
    quick.runner.allow()
    body = json.dumps({"prompt": "a", "max_tokens": 2}).encode()
    raw = quick.connect(
        b"POST /test/plain HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    )
    assert read_until(raw, b"\r\n\r\n").startswith(b"HTTP/1.1 100")
    raw.sendall(body)
    assert read_until(raw, b"}").startswith(b"HTTP/1.1 200")


def test_a_body_that_is_too_long_is_refused_before_it_is_read():
    with Served(max_body_bytes=1000) as served:
        assert served.ready.wait(10)
        raw = served.connect(
            b"POST /test/plain HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 1001\r\n\r\n"
        )
        assert read_until(raw, b"}}").startswith(b"HTTP/1.1 413")
        raw.close()
        chunked = b"POST /test/plain HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        raw = served.connect(chunked + b"800\r\n" + b" " * 0x800 + b"\r\n")
        assert b"max_body_bytes" in read_until(raw, b"}}")
        assert served.metric("rejected_total", reason="body_too_large") == 2
