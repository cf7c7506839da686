"""/inspect/roofline (nano_llama/server/inspection/roofline.py), and the phases of steps in /inspect/events: what cannot
be measured is said, never guessed."""

import dataclasses
import sys

import pytest

from helpers.api import events, listening, post, random_folder, random_llm, served
from helpers.events import MINE, complete, heard, of, until
from helpers.stub_engine import ScriptedRunner
from nano_llama import LLM
from nano_llama.vol3_engine import roofline as memory
from nano_llama.vol3_engine.cpu.kernels.step import PHASES

PATH = "/inspect/roofline"


@pytest.fixture
def llm(tmp_path):
    return LLM(random_folder(tmp_path / "model"), runner="cpu", device="cpu", num_threads=2)


@pytest.fixture
def passes(monkeypatch):
    """How often the memory was measured; it always delivers 5 GB/s."""
    found = []
    monkeypatch.setattr(memory, "read_bandwidth", lambda threads: found.append(threads) or 5e9)
    return found


def test_memory_is_measured_once_and_when_asked(passes, llm):
    with served(llm) as client:
        runner = client.app.state.service.llm.engine.runner
        before = client.get(PATH).json()
        assert before["bandwidth"] is None and not passes
        for _ in range(2):
            after = post(client, PATH)
        assert after == {**before, "bandwidth": 5e9} == client.get(PATH).json()
    assert passes == [2]
    assert before["weight_bytes"] == runner.weight_bytes and before["kv_bytes_per_token"] == runner.kv_bytes_per_token
    assert before["phases"] == list(PHASES) and before["threads"] == 2


@pytest.mark.parametrize("case", ["before", "meanwhile"])
def test_a_measurement_beside_other_work_does_not_count(case, passes, monkeypatch):
    with served(random_llm()) as client:
        stats = client.app.state.service.engine.stats
        works = {"busy": True} if case == "before" else {}

        def measure(threads):
            passes.append(threads)
            if case == "meanwhile":
                events(client, "/v1/completions", prompt="the fox", max_tokens=1)
            return 5e9

        monkeypatch.setattr(memory, "read_bandwidth", measure)
        monkeypatch.setattr(client.app.state.service.engine, "stats", lambda: dataclasses.replace(stats(), **works))
        assert post(client, PATH)["bandwidth"] is None and client.get(PATH).json()["bandwidth"] is None
    assert len(passes) == (case == "meanwhile")


def test_where_it_cannot_be_measured(passes, monkeypatch):
    with served(LLM.from_runner(ScriptedRunner(), None)) as client:
        assert client.get(PATH).json()["phases"] is None
        assert post(client, "/inspect/events", 400, time_phases=True)["error"]["param"] == "time_phases"
        monkeypatch.setattr(sys.modules["nano_llama.server.inspection.roofline"], "available_bytes", lambda: 2**20)
        assert "memory" in post(client, PATH, 400)["error"]["message"]
        client.app.state.service.trace = []
        assert post(client, PATH, 400)["error"]["code"] == "unsupported"
        assert PATH not in client.get("/inspect/model").json()["endpoints"]
        assert post(client, "/inspect/events", 400, time_phases=True)["error"]["code"] == "unsupported"
    assert not passes


@pytest.mark.server
def test_phases_are_timed_while_somebody_wants_them(llm):
    with llm, listening(llm) as url:
        runner = llm.engine.runner
        with heard(url) as plain:
            complete(url, MINE, max_tokens=2, ignore_eos=True)
            until(lambda: of(plain, "ended"))
            assert not runner.seconds and not any("phases" in step for step in of(plain, "step"))
            with heard(url, MINE, time_phases=True) as timed:
                complete(url, MINE, max_tokens=8, ignore_eos=True)
                until(lambda: of(timed, "ended") and len(of(timed, "step")) >= 8)
            until(lambda: not runner.seconds)
    for step in of(timed, "step"):
        assert list(step["phases"]) == list(PHASES) and all(value >= 0 for value in step["phases"].values())
        assert 0 < sum(step["phases"].values()) <= step["seconds"]
