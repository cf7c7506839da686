"""What befalls a server's process: it is killed, stopped, short of files and disk. Afterwards the next good request is
served, nothing is held, and no client took a failure for a success.

What befalls a request is in test_streaming.py, test_run.py and test_protocol.py.
"""

import contextlib
import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from helpers.served import read_all, read_until, until
from helpers.server_process import PROMPT, ServerProcess

pytestmark = pytest.mark.server


def test_killed_amid_a_stream():
    with ServerProcess() as server:
        raw = server.stream(max_tokens=400)
        received = read_until(raw, b"data: ")
        server.signal(signal.SIGKILL)
        received += read_all(raw)
        assert b"[DONE]" not in received and b'"finish_reason":"' not in received
        assert server.ends() == -signal.SIGKILL
        port = server.port
    with ServerProcess(port=port) as again:  # the port is free, whatever the old process has left
        again.is_well()


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM], [signal.SIGINT]])
def test_signals_amid_a_stream(signals):
    drained = len(signals) == 1
    with ServerProcess("--drain-seconds", "60") as server:
        # What is to be cut off takes a minute, so that no pause of this machine lets it end: 128 samples, 32 at a time.
        raw = server.stream(max_tokens=60) if drained else server.stream(prompt=[PROMPT] * 8, n=16, max_tokens=480)
        received = read_until(raw, b"data: ")
        for number in signals[:-1]:
            server.signal(number)
            until(lambda: server.request("GET", "/health")[1] == {"status": "draining"})  # two at once would be one
        server.signal(signals[-1])
        received += read_all(raw)
        code = server.ends()
    assert (b"[DONE]" in received) is drained
    assert code == (1 if not drained else 130 if signals[0] == signal.SIGINT else 0)


def test_stopped_for_seconds():
    with ServerProcess() as server:
        expected = server.complete(max_tokens=40, ignore_eos=True)
        raw = server.stream(max_tokens=40)
        received = read_until(raw, b"data: ")
        server.signal(signal.SIGSTOP)
        time.sleep(3)
        server.signal(signal.SIGCONT)
        received += read_until(raw, b"[DONE]")
        assert text_of(received) == expected
        server.is_well()


def text_of(received: bytes) -> str:
    lines = [line for line in received.decode().splitlines() if line.startswith("data: {")]
    return "".join(choice["text"] for line in lines for choice in json.loads(line[6:])["choices"])


def test_the_log_s_disk_is_full():
    with Path("/dev/full").open("w") as full, ServerProcess(log=full) as server:
        for _ in range(3):
            server.is_well()
        server.signal(signal.SIGTERM)
        assert server.ends() == 0


def test_the_log_s_reader_has_gone():
    reading, writing = os.pipe()
    with ServerProcess(log=writing) as server:
        os.close(reading)
        os.close(writing)
        for _ in range(3):
            server.is_well()


def test_more_connections_than_files():
    """Ten times as many clients as the process may have files."""
    with ServerProcess("--limit", "max_connections=16", limits="ulimit -n 256") as server:
        with contextlib.ExitStack() as stack:
            for _ in range(1000):
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
            server.is_well()
        server.is_well()


def test_too_few_files_are_said_at_the_start():
    server = ServerProcess(limits="ulimit -n 100")
    assert server.ends() == 2
    assert "ulimit -n" in json.loads(server.popen.stdout.read())["hint"]


def test_a_port_that_is_taken():
    with ServerProcess() as server:
        second = ServerProcess(port=server.port)
        assert second.ends() == 2
        assert "taken" in json.loads(second.popen.stdout.read())["error"]
        server.is_well()
