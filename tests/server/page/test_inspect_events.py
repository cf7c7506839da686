"""/inspect/events (nano_llama/server/inspection/events.py and nano_llama/server/feed.py): whose steps are which."""

import http.client
import json
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from helpers.api import bpe, listening, post, random_llm, served
from nano_llama.core.sampling import SamplingParams
from nano_llama.server.feed import for_owner
from nano_llama.vol3_engine.trace_files import read_trace

httpx = pytest.importorskip("httpx", reason="the extra `judges` is not installed")

PATH = "/inspect/events"
MINE, THEIRS = "page-0123456789abcdef", "page-fedcba9876543210"
PROMPT = bpe().encode("the quick brown fox jumps over the lazy dog the quick")


@pytest.fixture(scope="module")
def llm():
    with random_llm() as llm:
        yield llm


@pytest.fixture(scope="module")
def url(llm):
    with listening(llm) as url:
        yield url


@contextmanager
def heard(url: str, own: str | None = MINE):
    """The events of a stream, in a list that grows; `until` waits for one."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.request("POST", PATH, json.dumps({} if own is None else {"own": own}))
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
    answer = httpx.post(f"{url}/v1/completions", json={"prompt": PROMPT, **body}, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def of(events: list[dict], kind: str) -> list[dict]:
    return [event for event in events if event["event"] == kind]


@pytest.mark.server
def test_own_requests_step_by_step(url, llm):
    with heard(url) as events:
        complete(url, MINE, max_tokens=9, ignore_eos=True)
        until(lambda: of(events, "ended"))
    began = events[0]
    assert began["event"] == "began" and began["num_blocks"] == llm.engine.scheduler.pool.num_blocks
    (arrived,), (ended,) = of(events, "arrived"), of(events, "ended")
    assert arrived["own"] == f"{MINE}-1" and arrived["prompt_tokens"] == len(PROMPT)
    assert ended["own"] == f"{MINE}-1" and ended["tokens"] == 9
    steps = of(events, "step")
    assert (
        sum(row["count"] for step in steps for row in step["rows"])
        + sum(sum(step["prefix_hits"].values()) for step in steps)
        == len(PROMPT) + 8
    ), "every token is computed once, or found; the last one's row is not needed"
    assert sum(row["chooses"] for step in steps for row in step["rows"]) == 9
    assert all(step["others"] == {"sequences": 0, "rows": 0, "blocks": 0} for step in steps)
    assert all(step["seconds"] > 0 and sum(step["blocks"].values()) == began["num_blocks"] for step in steps)


@pytest.mark.server
def test_of_other_clients_only_counts(url):
    """Two who listen, each with a request: neither learns more of the other's than how much it takes."""
    with heard(url) as mine, heard(url, THEIRS) as theirs, heard(url, None) as nobodys:
        complete(url, MINE, max_tokens=4, ignore_eos=True)
        complete(url, THEIRS, max_tokens=6, ignore_eos=True)
        until(lambda: of(mine, "ended") and of(theirs, "ended"))
        until(lambda: len(of(nobodys, "step")) >= 10)
    for events, name, tokens, other in ((mine, MINE, 4, 6), (theirs, THEIRS, 6, 4)):
        assert [event["tokens"] for event in of(events, "ended")] == [tokens]
        steps = of(events, "step")
        assert {row["own"] for step in steps for row in step["rows"]} == {f"{name}-1"}
        assert sum(step["others"]["sequences"] for step in steps) == other
    assert {event["event"] for event in nobodys} == {"began", "step"}
    assert all(not step["rows"] and step["others"]["blocks"] for step in of(nobodys, "step"))


@pytest.mark.server
def test_it_costs_nothing_when_nobody_listens(url, llm):
    until(lambda: len(llm.engine._traces) == 1)  # the Meter's
    with heard(url), heard(url):
        assert len(llm.engine._traces) == 2, "all who listen share one"
    complete(url, MINE, max_tokens=2)
    until(lambda: len(llm.engine._traces) == 1)


@pytest.mark.server
def test_a_server_that_shuts_down_does_not_wait_for_it():
    with random_llm() as llm, listening(llm, drain_seconds=20.0) as url, heard(url) as events:
        began = time.monotonic()
        assert events
    assert time.monotonic() - began < 15


def test_a_trace_is_played_in_place_of_the_engine(tmp_path):
    path = tmp_path / "trace.jsonl"
    with random_llm(trace=path) as llm:
        llm.generate([PROMPT, PROMPT], SamplingParams(max_tokens=4, ignore_eos=True))
    written = read_trace(path)
    with served(random_llm()) as client:
        client.app.state.service.trace = written
        answer = client.post(PATH, json={})
    shown = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    assert shown[0] == {**written[0], "recorded": True} and shown[-1] == {"event": "over"}
    assert [event["event"] for event in shown[1:-1]] == [event["event"] for event in written[1:]]
    for event, original in zip(of(shown, "step"), of(written, "step"), strict=True):
        assert event["rows"] == [{**row, "own": "recorded"} for row in original["rows"]]
        assert event["others"]["sequences"] == 0 and event["blocks"] == original["blocks"]


def test_what_an_owner_sees_of_a_step():
    row = {"position": 3, "count": 1, "blocks": [4, 5], "chooses": True}
    step = {
        "event": "step", "t": 1.0, "rows": [{**row, "sequence": 1}, {**row, "sequence": 2}, {**row, "sequence": 3}],
        "prefix_hits": {1: 16, 2: 32}, "preempted": [2, 3], "blocks": {"held": 2}, "running": 3, "waiting": 0,
    }  # fmt: skip
    seen = for_owner(step, {1: "a-1"})
    assert seen["rows"] == [{**row, "sequence": 1, "own": "a-1"}]
    assert seen["others"] == {"sequences": 2, "rows": 2, "blocks": 2}
    assert seen["prefix_hits"] == {1: 16} and seen["preempted"] == []
    assert for_owner({"event": "arrived", "sequence": 2, "prompt_tokens": 5}, {1: "a-1"}) is None
    assert for_owner({"event": "began", "num_blocks": 5}, {1: "a-1"}) is None


@pytest.mark.parametrize("own", ["page-short", "page-", "x", "page-" + "é" * 20, 3])
def test_a_name_that_others_could_guess_is_refused(client, own):
    assert post(client, PATH, 400, own=own)["error"]["param"] == "own"
