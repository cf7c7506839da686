"""Starting, loading and ending (run.py)."""

import json
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from helpers.api import random_llm
from helpers.served import GatedRunner, Served, read_all, read_until, until
from helpers.stub_engine import ByteTokenizer
from nano_llama.core.errors import UserError
from nano_llama.server.run import bind, url_of, warning_of
from nano_llama.server.service import Service
from nano_llama.server.settings import ServerSettings
from nano_llama.vol3_engine.llm import LLM


def test_while_the_model_loads_requests_get_503():
    may_load, runner = threading.Event(), GatedRunner()

    def load():
        assert may_load.wait(10)
        return LLM.from_runner(runner, ByteTokenizer())

    with Served(runner, load=load) as served:
        assert served.get("/health").status == 503 and served.get("/health").json == {"status": "loading"}
        assert served.get("/version").status == served.get("/metrics").status == 200
        answer = served.post("/test/plain", {"prompt": "a"})
        assert (answer.status, answer.error["code"]) == (503, "loading") and answer.headers["retry-after"]
        may_load.set()
        served.until(lambda: served.get("/health").status == 200)
        runner.allow()
        assert served.post("/test/plain", {"prompt": "a"}).status == 200


@contextmanager
def a_page_that_waits():
    """A server whose model is not there, and a request of its page -> both, and what lets the model load."""
    may_load = threading.Event()

    def load():
        assert may_load.wait(10)
        return random_llm()

    with Served(load=load) as served:
        yield (
            served,
            served.connect(b"GET /inspect/model HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"),
            may_load,
        )


def test_the_page_waits_for_the_model():
    """It asks once, and is answered as soon as the model is there."""
    with a_page_that_waits() as (served, raw, may_load):
        assert served.get("/health").status == 503
        may_load.set()
        assert read_all(raw).startswith(b"HTTP/1.1 200")


def test_a_server_that_ends_while_it_loads_keeps_no_page_waiting():
    with a_page_that_waits() as (served, raw, may_load):
        served.until(lambda: served.service.in_flight)
        served.signal()
        assert read_all(raw).startswith(b"HTTP/1.1 503")
        assert served.ended.wait(10)
        may_load.set()


def test_a_model_that_does_not_load_ends_the_server():
    def load():
        raise UserError("not a model")

    with Served(load=load) as served:
        assert served.ended.wait(10)
    assert isinstance(served.server.failure, UserError)


def test_a_signal_while_the_model_loads_ends_at_once():
    never = threading.Event()
    with Served(load=lambda: never.wait(20)) as served:
        assert served.get("/health").status == 503
        served.signal()
        assert served.ended.wait(10)
        never.set()
    assert served.server.failure is None and not served.server.cut


def test_health_answers_while_a_step_takes_long():
    with Served(GatedRunner()) as served:
        assert served.ready.wait(10)
        raw = served.start("/test/plain", {"prompt": "a"})
        served.until(lambda: served.stats().busy)
        served.runner.allow(1)
        served.until(lambda: served.stats().steps == 1)
        before = served.get("/health").json
        time.sleep(0.2)
        after = served.get("/health").json
        assert before["busy"] and after["seconds_since_step"] >= before["seconds_since_step"] + 0.2
        raw.close()


def test_a_signal_lets_running_requests_end_and_refuses_new_ones():
    with Served(GatedRunner()) as served:
        assert served.ready.wait(10)
        kept = served.connect(b"GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n")
        read_until(kept, b"}")
        raw = served.start("/test/streamed", {"prompt": "a", "max_tokens": 20})
        served.until(lambda: served.stats().busy)
        served.signal()
        answer = served.post("/test/plain", {"prompt": "a"})
        assert (answer.status, answer.error["code"]) == (503, "draining")
        assert answer.headers["connection"] == "close"
        assert served.get("/health").json == {"status": "draining"}
        kept.sendall(b"GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"connection: close" in read_all(kept)
        assert not served.ended.is_set()
        served.runner.allow()
        assert b"[DONE]" in read_until(raw, b"0\r\n\r\n")
        assert served.ended.wait(10)
    assert not served.server.cut


@pytest.mark.parametrize("phase", ["queue", "prefill", "decode"])
def test_after_the_time_to_drain_a_stream_ends_with_an_error(phase):
    with Served(GatedRunner(), max_num_seqs=1, drain_seconds=0.2) as served:
        assert served.ready.wait(10)
        others = [served.start("/test/plain", {"prompt": "a", "max_tokens": 50})] if phase == "queue" else []
        served.until(lambda: served.stats().running + served.stats().waiting == len(others))
        raw = served.start("/test/streamed", {"prompt": "a", "max_tokens": 50})
        served.until(lambda: served.stats().running + served.stats().waiting == len(others) + 1)
        if phase == "decode":
            served.runner.allow(2)
            served.until(lambda: served.stats().generation_tokens == 2)
        served.signal()
        received = read_all(raw)
        served.runner.allow()
        assert served.ended.wait(10)
    assert b'"code":"draining"' in received and b"[DONE]" not in received
    assert served.server.cut


def test_a_plain_answer_that_is_given_up_is_503():
    with Served(GatedRunner(), drain_seconds=0.1) as served:
        assert served.ready.wait(10)
        raw = served.start("/test/plain", {"prompt": "a"})
        served.until(lambda: served.stats().busy)
        served.signal()
        head, _, body = read_all(raw).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503") and json.loads(body)["error"]["code"] == "draining"


def test_a_second_signal_ends_at_once():
    with Served(GatedRunner()) as served:
        assert served.ready.wait(10)
        raw = served.start("/test/streamed", {"prompt": "a"})
        served.until(lambda: served.stats().busy)
        served.signal()
        served.signal()
        assert b"[DONE]" not in read_all(raw)
        served.runner.allow()
        assert served.ended.wait(10)
    assert served.server.cut


def test_a_port_that_is_taken():
    with bind("127.0.0.1", 0) as taken, pytest.raises(UserError, match="taken") as raised:
        bind("127.0.0.1", taken.getsockname()[1])
    assert "--port" in raised.value.hint


def test_an_unknown_host():
    with pytest.raises(UserError, match="--host"):
        bind("no.such.host.invalid", 0)
    with pytest.raises(UserError, match="--host"):
        bind("192.0.2.1", 0)  # an address that is reserved for examples


def test_a_connection_sends_at_once():
    """Not when the other side has acknowledged what was sent before, which may take it 40 ms."""
    with bind("127.0.0.1", 0) as sock, socket.create_connection(sock.getsockname()), sock.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_url():
    with bind("0.0.0.0", 0) as sock:
        assert url_of(sock) == f"http://127.0.0.1:{sock.getsockname()[1]}"
    if socket.has_ipv6:
        with bind("::1", 0) as sock:
            assert url_of(sock) == f"http://[::1]:{sock.getsockname()[1]}"


@pytest.mark.parametrize(
    ("settings", "warned"),
    [({}, False), ({"host": "0.0.0.0"}, True), ({"host": "0.0.0.0", "api_key_digests": (b"x",)}, False)],
)
def test_a_server_without_keys_on_a_network_is_warned_of(settings, warned):
    assert (warning_of(Service(ServerSettings(**settings), ["tiny"])) is not None) is warned


def test_two_servers_do_not_meet():
    """Nothing is global: each has a registry, a queue and connections of its own."""
    with Served() as one, Served() as other:
        assert one.ready.wait(10) and other.ready.wait(10)
        one.runner.allow()
        one.post("/test/plain", {"prompt": "a", "max_tokens": 2})
        assert one.metric("request_success_total", finished_reason="length") == 1
        assert other.metric("request_success_total", finished_reason="length") is None
        until(lambda: other.get("/health").status == 200)
