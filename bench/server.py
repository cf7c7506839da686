"""The server beside the engine that it serves: what HTTP costs, what readers feel, and what overload does.

    python bench/server.py --model SmolLM2-135M-Instruct.Q4_1.gguf [--turns 5] [--only throughput readers ...]

Sections, each by turns within this run, with random prompts of token ids, greedy, to their full length:

    throughput   32 streaming clients, 256 tokens in, 128 out / LLM.generate; and that again beside the same client
                 reading from a null app, which replays a recorded stream: the client's processor time is not the
                 server's fault
    readers      16 readers, while a prompt of 1,000 tokens comes every 5 s: the time between two tokens
    overload     ten times what the server can do, for a while: what is refused, how fast, and what the others get
    health       /health while 32 clients stream
    start        seconds until /health is ok, with compiled kernels; memory beyond the offline engine's

Needs the extra `serve`. Writes bench/results/server.json; its last printed line is the summary.
"""

import argparse
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from _machine import fingerprint

from nano_llama.core.files import write_json

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "server.json"
CLIENTS, PROMPT, NEW = 32, 256, 128
VOCABULARY = range(1_000, 40_000)  # ordinary tokens of SmolLM2's vocabulary

OFFLINE = """
import json, sys, time
from nano_llama import LLM, SamplingParams
llm = LLM(sys.argv[1], max_num_seqs=32, max_num_batched_tokens=int(sys.argv[2]))
print("ready", flush=True)
for line in sys.stdin:
    question = json.loads(line)
    params = SamplingParams(temperature=0.0, max_tokens=question["max_tokens"], ignore_eos=True)
    began = time.perf_counter()
    outputs = llm.generate(question["prompts"], params)
    seconds = time.perf_counter() - began
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    tokens = sum(len(out.token_ids) for out in outputs)
    print(json.dumps({"seconds": seconds, "tokens": tokens, "peak_mb": peak / 1024}), flush=True)
"""

NULL = """
import asyncio, sys, uvicorn
event, step, count = sys.argv[2].encode(), float(sys.argv[3]), int(sys.argv[4])

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(count):
        await asyncio.sleep(step)
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\\n\\n"})

uvicorn.run(app, port=int(sys.argv[1]), http="h11", log_level="error")
"""


class Child:
    """A process that answers lines of JSON."""

    def __init__(self, *command: str, ready: bool = True):
        self.process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if ready:
            assert self.process.stdout and self.process.stdout.readline() == "ready\n", "it did not start"

    def tell(self, **question: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"exit code {self.process.wait()}")
        return json.loads(line)

    def ask(self, **question: Any) -> dict[str, Any]:
        self.tell(**question)
        return self.hear()

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


class Server:
    """`nano-llama serve` on a free port."""

    def __init__(self, model: Path, *options: str):
        self.port = free_port()
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        began = time.perf_counter()
        command = ["-m", "nano_llama", "serve", "--model", str(model), "--port", str(self.port), *options]
        self.process = subprocess.Popen([sys.executable, *command], stdout=self.log, stderr=self.log)
        self.wait(began)
        self.model = self.get("/v1/models")["data"][0]["id"]

    def wait(self, began: float) -> None:
        while True:
            try:
                self.get("/health")
            except OSError:
                if self.process.poll() is not None or time.perf_counter() - began > 120:
                    self.log.seek(0)
                    raise RuntimeError(f"the server did not start: {self.log.read()[-500:]}") from None
                time.sleep(0.01)
            else:
                self.ready_seconds = time.perf_counter() - began
                return

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return json.loads(answer.read())

    def body(self, prompt: list[int], max_tokens: int = NEW) -> dict[str, Any]:
        return {
            "model": self.model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True,
            "stream": True,
        }  # fmt: skip

    def memory_mb(self, name: str = "VmRSS") -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name)) / 1024

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.log.close()


@contextmanager
def null_app(event: str, step: float) -> Iterator[int]:
    """An app that does nothing but send `event` NEW times, one every `step` seconds."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", NULL, str(port), event, str(step), str(NEW)])
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def prompts(seed: int, count: int, length: int = PROMPT) -> list[list[int]]:
    """Never the same twice, so that no prefix is found again."""
    draw = random.Random(seed)
    return [[draw.choice(VOCABULARY) for _ in range(length)] for _ in range(count)]


def percentile(values: list[float], p: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(p / 100 * len(ordered)))] if ordered else float("nan")


def milliseconds(values: list[float]) -> dict[str, float]:
    return {f"p{p}_ms": round(1e3 * percentile(values, p), 1) for p in (50, 99)} | {
        "max_ms": round(1e3 * max(values, default=float("nan")), 1)
    }


# -- sections ---------------------------------------------------------------------------------------------------------


def throughput(bench: "Bench") -> dict[str, Any]:
    """Tokens/s, by turns: offline, the server, offline beside the client and a null app."""
    server, client, offline = bench.server(), bench.client, bench.offline()
    rates: dict[str, list[float]] = {"offline": [], "server": [], "offline beside the client": []}
    shares = []
    for turn in range(bench.turns + 1):
        batch = prompts(10 * turn, CLIENTS)
        alone = offline.ask(prompts=batch, max_tokens=NEW)
        bodies = [server.body(prompt) for prompt in prompts(10 * turn + 1, CLIENTS)]
        served = client.ask(do="batch", port=server.port, bodies=bodies)
        assert all(request["whole"] for request in served["requests"]), "a stream broke off"
        step = median(b for request in served["requests"] for b in request["intervals"])
        with null_app(EVENT, step) as port:
            client.tell(do="batch", port=port, bodies=bodies)
            beside = offline.ask(prompts=prompts(10 * turn + 2, CLIENTS), max_tokens=NEW)
            client.hear()
        if turn == 0:
            continue  # warms up
        tokens = CLIENTS * NEW
        rates["offline"].append(tokens / alone["seconds"])
        rates["server"].append(tokens / served["seconds"])
        rates["offline beside the client"].append(tokens / beside["seconds"])
        shares.append(served["cpu"] / served["seconds"])
    middle = {name: median(values) for name, values in rates.items()}
    return {
        "tokens_per_second": {name: [round(v, 1) for v in values] for name, values in rates.items()},
        "of_offline": round(middle["server"] / middle["offline"], 3),
        "of_offline_beside_the_client": round(middle["server"] / middle["offline beside the client"], 3),
        "client_share_of_a_core": round(median(shares), 3),
    }


EVENT = 'data: {"id":"cmpl-0123456789abcdef","object":"text_completion","created":1700000000,"model":"m","choices":[{"index":0,"text":" word","logprobs":null,"finish_reason":null}]}\n\n'  # noqa: E501


def readers(bench: "Bench") -> dict[str, Any]:
    """The time between two tokens of 16 readers while long prompts arrive."""
    server, seconds = bench.server(), 60.0
    bodies = [server.body(prompt, 512) for prompt in prompts(1_000, 16)]
    long = [server.body(prompt, 1) for prompt in prompts(2_000, 20, 1_000)]
    found = bench.client.ask(do="readers", port=server.port, bodies=bodies, intruder=long, every=5.0, seconds=seconds)
    intervals = [interval for request in found["requests"] for interval in request["intervals"]]
    firsts = [request["first"] for request in found["long"]]
    return {**milliseconds(intervals), "long_prompts": len(firsts), "long_first_token_s": round(median(firsts), 2)}


def overload(bench: "Bench") -> dict[str, Any]:
    """Open-loop arrivals at the server's capacity, then at ten times of it."""
    server, seconds = bench.server("--max-waiting", "64"), 30.0
    made = iter(prompts(3_000, 100_000 // 64, 64))
    body = server.body(next(made), 32)
    warm = bench.client.ask(do="batch", port=server.port, bodies=[server.body(next(made), 32) for _ in range(96)])
    capacity = 96 / warm["seconds"]  # requests/s
    before = server.memory_mb()
    at_one = bench.client.ask(do="arrivals", port=server.port, body=body, per_second=0.9 * capacity, seconds=seconds)
    at_ten = bench.client.ask(do="arrivals", port=server.port, body=body, per_second=10 * capacity, seconds=seconds)
    good = [request for request in at_ten["requests"] if request["status"] == 200 and request["whole"]]
    refused = [request for request in at_ten["requests"] if request["status"] == 429]
    promised = [float(request["retry_after"]) for request in refused]
    return {
        "capacity_per_second": round(capacity, 1),
        "good_per_second_at_0.9x": round(sum(r["whole"] for r in at_one["requests"]) / at_one["seconds"], 1),
        "good_per_second_at_10x": round(len(good) / at_ten["seconds"], 1),
        "refused": len(refused),
        "neither": len(at_ten["requests"]) - len(good) - len(refused),
        "refused_in": milliseconds([request["seconds"] for request in refused]),
        "accepted_first_token_p99_s": round(percentile([request["first"] for request in good], 99), 2),
        "retry_after_median_s": median(promised) if promised else None,
        "memory_growth_mb": round(server.memory_mb() - before, 1),
    }


def health(bench: "Bench") -> dict[str, Any]:
    """/health, 50 times a second, while 32 clients stream."""
    server, other = bench.server(), Child(str(HERE / "server_client.py"), ready=False)
    try:
        bench.client.tell(do="batch", port=server.port, bodies=[server.body(p) for p in prompts(4_000, CLIENTS)])
        found = other.ask(do="get", port=server.port, path="/health", per_second=50.0, seconds=5.0)
        bench.client.hear()
    finally:
        other.close()
    assert all(request["status"] == 200 for request in found["requests"])
    return milliseconds([request["seconds"] for request in found["requests"]])


def start(bench: "Bench") -> dict[str, Any]:
    """Until it is ready, and its memory after the same work as the offline engine."""
    ready, memory = [], []
    peak = bench.offline().ask(prompts=prompts(5_000, CLIENTS), max_tokens=NEW)["peak_mb"]
    for turn in range(3):
        server = Server(bench.model)
        ready.append(server.ready_seconds)
        bodies = [server.body(prompt) for prompt in prompts(5_001 + turn, CLIENTS)]
        bench.client.ask(do="batch", port=server.port, bodies=bodies)
        memory.append(server.memory_mb("VmHWM"))
        server.close()
    return {
        "ready_s": [round(seconds, 2) for seconds in ready],
        "peak_mb": round(median(memory)),
        "offline_peak_mb": round(peak),
    }


SECTIONS: dict[str, Callable[["Bench"], dict[str, Any]]] = {
    "throughput": throughput, "readers": readers, "overload": overload, "health": health, "start": start,
}  # fmt: skip


class Bench:
    """The processes that the sections share. Each is started when it is needed."""

    def __init__(self, model: Path, turns: int):
        self.model, self.turns = model, turns
        self.client = Child(str(HERE / "server_client.py"), ready=False)
        self._server: tuple[tuple[str, ...], Server] | None = None
        self._offline: Child | None = None

    def server(self, *options: str) -> Server:
        if self._server is None or self._server[0] != options:
            if self._server is not None:
                self._server[1].close()
            self._server = options, Server(self.model, *options)
        return self._server[1]

    def offline(self) -> Child:
        if self._offline is None:
            self._offline = Child("-c", OFFLINE, str(self.model), "512")
        return self._offline

    def close(self) -> None:
        self.client.close()
        if self._offline is not None:
            self._offline.close()
        if self._server is not None:
            self._server[1].close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    asked = parser.parse_args()
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    bench = Bench(asked.model.resolve(), asked.turns)
    found: dict[str, Any] = {}
    try:
        for name in asked.only:
            found[name] = {**SECTIONS[name](bench), "load": fingerprint()["load"]}
            print(name, json.dumps(found[name], indent=2), file=sys.stderr)
    finally:
        bench.close()
    write_json(RESULTS, {**known, **found, "machine": fingerprint(), "model": asked.model.name})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
