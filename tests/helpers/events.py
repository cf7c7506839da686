"""Listening to /inspect/events, beside requests of one's own."""

import http.client
import json
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from helpers.api import bpe

PATH = "/inspect/events"
MINE = "page-0123456789abcdef"
PROMPT = bpe().encode("the quick brown fox jumps over the lazy dog the quick")


@contextmanager
def heard(url: str, own: str | None = MINE, **more):
    """The events of a stream, in a list that grows; `until` waits for one."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.request("POST", PATH, json.dumps({**more, **({} if own is None else {"own": own})}))
    answer = connection.getresponse()
    assert answer.status == 200 and answer.getheader("content-type").startswith("text/event-stream")
    found: list[dict] = []

    def read() -> None:
        try:
            while line := answer.readline():
                if line.startswith(b"data: "):
                    found.append(json.loads(line.removeprefix(b"data: ")))
        except (OSError, ValueError, AttributeError):
            pass  # closed below

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    until(lambda: found)
    try:
        yield found
    finally:
        connection.sock.shutdown(2)
        connection.close()
        reader.join(10)


def until(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)


def complete(url: str, name: str, **body) -> dict:
    headers = {"x-request-id": f"{name}-1"}
    data = json.dumps({"prompt": PROMPT, **body}).encode()
    with urlopen(Request(f"{url}/v1/completions", data, headers), timeout=60) as answer:
        return json.loads(answer.read())


def of(events: list[dict], kind: str) -> list[dict]:
    return [event for event in events if event["event"] == kind]
