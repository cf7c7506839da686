"""/inspect/events (nano_llama/server/inspection/events.py and nano_llama/server/feed.py): whose steps are which."""

import json
import time

import pytest

from helpers.api import listening, post, random_llm, served
from helpers.events import MINE, PATH, PROMPT, complete, heard, of, until
from nano_llama.core.sampling import SamplingParams
from nano_llama.server.feed import for_owner
from nano_llama.vol3_engine.trace_files import read_trace

THEIRS = "page-fedcba9876543210"


@pytest.fixture(scope="module")
def llm():
    with random_llm() as llm:
        yield llm


@pytest.fixture(scope="module")
def url(llm):
    with listening(llm) as url:
        yield url


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
    assert all(not any(step["others"].values()) for step in steps)
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
        starts = [sum(row["count"] for row in original["rows"][:at]) for at in range(len(original["rows"]))]
        rows = zip(original["rows"], starts, strict=True)
        assert event["rows"] == [{**row, "start": start, "own": "recorded"} for row, start in rows]
        assert event["others"]["sequences"] == 0 and event["blocks"] == original["blocks"]


def test_what_an_owner_sees_of_a_step():
    row = {"position": 3, "count": 1, "blocks": [4, 5], "chooses": True}
    step = {
        "event": "step", "t": 1.0,
        "rows": [{**row, "sequence": 2, "count": 7}, {**row, "sequence": 1}, {**row, "sequence": 3, "chooses": False}],
        "prefix_hits": {1: 16, 2: 32}, "preempted": [2, 3], "blocks": {"held": 2}, "running": 3, "waiting": 0,
    }  # fmt: skip
    seen = for_owner(step, {1: "a-1"})
    assert seen["rows"] == [{**row, "sequence": 1, "start": 7, "own": "a-1"}]
    assert seen["others"] == {"sequences": 2, "rows": 8, "blocks": 2, "context": 14, "tokens": 1}
    assert seen["prefix_hits"] == {1: 16} and seen["preempted"] == []
    assert for_owner({"event": "arrived", "sequence": 2, "prompt_tokens": 5}, {1: "a-1"}) is None
    assert for_owner({"event": "began", "num_blocks": 5}, {1: "a-1"}) is None


@pytest.mark.parametrize("own", ["page-short", "page-", "x", "page-" + "é" * 20, 3])
def test_a_name_that_others_could_guess_is_refused(client, own):
    assert post(client, PATH, 400, own=own)["error"]["param"] == "own"
