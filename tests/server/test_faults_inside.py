"""What befalls a server from within: a step, the engine's thread, a template, a schema, the kernels' cache, a fork, a
page that does not read. Afterwards the next good request is served, nothing is held, and no failure looks like success.

What befalls its process is in test_faults.py, what clients do in test_streaming.py and test_protocol.py.
"""

import json
import shutil
import signal
import threading

import pytest

from helpers.api import TEMPLATE, bpe, random_llm
from helpers.served import SOON, GatedRunner, Served, read_all, read_until
from helpers.server_process import ServerProcess
from nano_llama.core import env
from nano_llama.tokenizer import chat as chat_templates
from nano_llama.vol3_engine.trace import RecentEvents

pytestmark = pytest.mark.server

KINDS = ("/test/plain", "/test/streamed")
LOOP = "{% if messages[0].content == 'loop' %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
LOOP += "{% endfor %}{% endif %}"
CHAT = "/v1/chat/completions"
SLOW_SCHEMA = {"type": "integer", "multipleOf": 9_999_991, "minimum": 0, "maximum": 10**15}


def ended_well(received: bytes) -> bool:
    """Whether a client would take it for a success."""
    return received.startswith(b"HTTP/1.1 200") and (b"[DONE]" in received or b"event-stream" not in received)


def is_well(served: Served) -> None:
    """As a server that nothing has befallen."""
    served.runner.allow()
    asked = {"prompt": "tell me", "max_tokens": 4}
    assert served.post("/test/plain", asked).json == {"text": "grüß"[:3], "tokens": 4}
    served.until(lambda: served.stats().blocks_held == 0 and not served.stats().busy)
    assert served.get("/health").json["status"] == "ok"


@pytest.fixture
def served():
    with Served(GatedRunner(script={"tell me": "grüße €!"})) as served:
        assert served.ready.wait(SOON)
        yield served


def test_a_step_that_raises(served):
    """It fails all that the engine had, in decode and in the queue, samples and streams, and nobody else."""
    asked = {"prompt": "tell me", "max_tokens": 20}
    clients = [served.start(path, {**asked, "n": n}) for path in KINDS for n in (1, 2)]
    served.until(lambda: served.stats().running + served.stats().waiting == 6)
    served.runner.allow(2)
    served.until(lambda: served.stats().steps == 2)
    served.runner.failure = RuntimeError("a secret of the server")
    served.runner.allow()
    answers = []
    for client in clients:
        with client:
            answers.append(read_until(client, b"}}"))
    assert not any(map(ended_well, answers)) and not any(b"secret" in answer for answer in answers)
    assert all(b"internal_error" in answer for answer in answers)
    is_well(served)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_cannot_go_on_says_so(served):
    """Nobody waits in vain, and /health tells whoever restarts servers."""
    clients = [served.start(path, {"prompt": "a", "max_tokens": 20}) for path in KINDS]
    served.until(lambda: served.stats().running + served.stats().waiting == 2)
    served.runner.allow(1)
    served.until(lambda: served.stats().running == 2)
    served.service.llm.engine.abort_all = None  # which is called then, and fails too
    served.runner.failure = RuntimeError("the step broke")
    served.runner.allow()
    assert not any(ended_well(read_until(client, b"}}")) for client in clients)
    served.until(lambda: served.get("/health").status == 503)
    assert served.get("/health").json == {"status": "failed"}
    answer = served.post("/test/plain", {"prompt": "a"})
    assert (answer.status, answer.error["code"]) == (503, "failed")


def test_a_template_that_hangs_and_one_whose_process_dies(monkeypatch):
    started = []

    class Recorded(chat_templates.LimitedProcess):
        def __init__(self, *args):
            started.append(self)
            super().__init__(*args)

    monkeypatch.setattr(chat_templates, "LimitedProcess", Recorded)
    monkeypatch.setattr(chat_templates, "RENDER_SECONDS", 1.0)
    good = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "temperature": 0}
    with Served(load=lambda: random_llm(bpe(chat_template=LOOP + TEMPLATE))) as served:
        assert served.ready.wait(SOON)
        right = served.post(CHAT, good).json["choices"]
        hung = served.post(CHAT, {"messages": [{"role": "user", "content": "loop"}], "stream": True})
        assert hung.status == 400 and "longer than" in hung.error["message"]
        assert served.post(CHAT, good).json["choices"] == right
        for process in started:  # between two requests
            process.popen.kill()
            process.popen.wait()
        assert served.post(CHAT, good).json["choices"] == right
        # amid one
        monkeypatch.setattr(chat_templates, "RENDER_SECONDS", 2 * SOON)
        number = len(started)
        with served.start(CHAT, {"messages": [{"role": "user", "content": "loop"}]}) as raw:
            served.until(lambda: served.service.in_flight == 1)
            threading.Event().wait(0.3)  # until it loops
            for process in started:
                process.popen.kill()
            received = read_until(raw, b"}}")
        assert received.startswith(b"HTTP/1.1 400") and b"ended its process" in received
        assert served.post(CHAT, good).json["choices"] == right
        assert len(started) > number
        served.until(lambda: served.stats().blocks_held == 0)


def test_a_schema_that_takes_too_long():
    good = {"prompt": "the quick", "max_tokens": 4, "temperature": 0}
    obeyed = {**good, "structured_outputs": {"choice": ["ab"]}}
    with Served(load=lambda: random_llm()) as served:
        assert served.ready.wait(SOON)
        right = served.post("/v1/completions", good).json["choices"]
        clients = [
            served.start("/v1/completions", {**good, "structured_outputs": {"json": SLOW_SCHEMA}, "stream": streamed})
            for streamed in (False, True)
        ]
        served.until(lambda: served.service.in_flight == 2)
        assert served.post("/v1/completions", good).json["choices"] == right
        for client in clients:
            with client:
                received = read_until(client, b"}}")
                assert received.startswith(b"HTTP/1.1 400") and b"structured_outputs" in received
        assert served.post("/v1/completions", obeyed).json["choices"][0]["text"] == "ab"
        served.until(lambda: served.stats().blocks_held == 0)


def test_a_reader_of_the_trace_that_never_reads(served):
    events = RecentEvents(capacity=8)
    served.service.llm.engine.subscribe(events)
    served.runner.allow()
    served.post("/test/plain", {"prompt": "a", "max_tokens": 40})
    is_well(served)
    assert [number for number, _ in events.since(0)] == list(range(events.since(0)[0][0], events.since(0)[-1][0] + 1))
    assert len(events.since(0)) == 8 and events.since(0)[0][0] > 30


FORKING = """
import multiprocessing, signal
from nano_llama.cli import main

def fork(number, frame):
    child = multiprocessing.get_context("fork").Process(target=print, args=["forked"])
    child.start()
    child.join()

signal.signal(signal.SIGUSR1, fork)
main()
"""


def test_a_fork():
    """A child that is forked off takes nothing with it when it ends: threads, processes of templates, sockets."""
    with ServerProcess("--engine", "engine", script=FORKING) as server:
        right = server.complete()
        assert server.complete(structured_outputs={"choice": ["a"]}) == "a"
        raw = server.stream(max_tokens=60)
        received = read_until(raw, b"data: ")
        server.signal(signal.SIGUSR1)
        assert server.popen.stdout.readline() == "forked\n"
        received += read_until(raw, b"[DONE]")
        assert server.complete() == right
        assert server.complete(structured_outputs={"choice": ["a"]}) == "a"
        server.is_well()


def test_the_cache_of_kernels_has_gone(tmp_path, monkeypatch):
    """Amid the work, and for the next start a folder that cannot be made."""
    kernels = env.cache_dir() / "kernels"
    if not kernels.exists():
        pytest.skip("no kernels have been compiled here")
    shutil.copytree(kernels, tmp_path / "cache" / "kernels")
    monkeypatch.setenv("NANO_LLAMA_CACHE", str(tmp_path / "cache"))
    with ServerProcess("--engine", "engine") as server:
        right = server.complete()
        shutil.rmtree(tmp_path / "cache")
        (tmp_path / "cache").write_text("in the way")
        assert server.complete() == right
        assert server.complete(n=3, logprobs=2, structured_outputs={"regex": "[a-z]+"})
        server.is_well()


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_lets_those_in_queue_prefill_and_decode_end(kind):
    with Served(GatedRunner(script={"tell me": "grüße €!"}), max_num_seqs=2) as served:
        assert served.ready.wait(SOON)
        asked = {"prompt": "tell me", "max_tokens": 9}
        clients = [served.start(kind, asked)]
        served.until(lambda: served.stats().running == 1)
        served.runner.allow(3)
        served.until(lambda: served.stats().generation_tokens == 3)
        clients += [served.start(kind, {**asked, "prompt": prompt}) for prompt in ("tell me", "another")]
        served.until(lambda: served.stats().running + served.stats().waiting == 3)
        served.signal()
        served.runner.allow()
        answers = [read_all(client) for client in clients]
        assert served.ended.wait(SOON)
    assert all(map(ended_well, answers)) and not served.server.cut
    texts = [text_of(answer) for answer in answers]
    assert texts[0] == texts[1] and texts[0].startswith("grüße") and texts[2] != texts[0]


def text_of(received: bytes) -> str:
    body = received.partition(b"\r\n\r\n")[2].decode()
    parts = [json.loads(line[line.index("{") :]) for line in body.splitlines() if "{" in line]
    return "".join(part.get("text", "") for part in parts)
