"""What is not meant well: bodies that are nearly right, hostile schemas and expressions, connections that say nothing.

    PYTHONPATH=tests python bench/server_fuzz.py [--bodies 10000] [--constraints 1000] [--connections 500] [--seed 1]

A server in a process of its own, over a tiny model with random weights and a chat template with tools, is asked all of
it by six clients at once (tests/helpers/hostile.py draws it). Good requests come in between, whose answer is known.

Bars: no status but 200, 400 and 404; no stream without its end; every good answer right; afterwards the same process
is well, with nothing running and no block held. How long good requests take in between, against alone, is reported.
Needs the extra `serve`. Writes bench/results/server_fuzz.json; its last printed line is the summary. A short run is a
test (tests/server/test_hostile.py).
"""

import argparse
import http.client
import json
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from _machine import fingerprint

from helpers.api import TOOL_TEMPLATE, bpe, random_folder
from helpers.hostile import GOOD, SENT, body_for, constraint
from nano_llama.core.files import write_json

RESULTS = Path(__file__).parent / "results" / "server_fuzz.json"
CLIENTS = 6
COMPLETIONS = "/v1/completions"
KNOWN = {"prompt": "the quick", "temperature": 0, "max_tokens": 6}
PATHS = [*GOOD, COMPLETIONS, "/v1/chat/completions", COMPLETIONS, "/v1/chat/completions"]


class Server:
    """`nano-llama serve`, and the answer to KNOWN."""

    def __init__(self, port: int, process: subprocess.Popen):
        self.port, self.process = port, process
        self.right = self.known()[1]
        self.alone = [self.known()[0] for _ in range(20)]

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, answer.read()

    def known(self) -> tuple[float, Any]:
        """(seconds, the answer's choices)"""
        began = time.perf_counter()
        status, body = self.ask("POST", COMPLETIONS, KNOWN)
        assert status == 200, body
        return time.perf_counter() - began, json.loads(body)["choices"]

    def metrics(self) -> dict[str, float]:
        text = self.ask("GET", "/metrics")[1].decode()
        return {name: float(value) for name, value in re.findall(r"^nano_llama:(\S+) (\S+)$", text, re.MULTILINE)}

    def held(self) -> float:
        """Blocks, and requests that run or wait, once there are none; after 10 s, as many as there are."""
        for _ in range(100):
            found = self.metrics()
            held = sum(value for name, value in found.items() if name.startswith("num_requests_") or '"held"' in name)
            if not held:
                break
            time.sleep(0.1)
        return held


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    random_folder(folder / "tiny", bpe(chat_template=TOOL_TEMPLATE))
    command = [sys.executable, "-m", "nano_llama", "serve", "--model", str(folder / "tiny"), "--engine", "numpy"]
    command += ["--port", "0", "--json", "--max-num-seqs", "8"]
    command += ["--limit", "header_seconds=3", "--limit", "body_seconds=3"]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=-1, stderr=log, text=True) as process:
        assert process.stdout
        try:
            yield Server(int(json.loads(process.stdout.readline())["url"].rpartition(":")[2]), process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


class Findings:
    """What one kind of attack brought."""

    def __init__(self, server: Server):
        self.server = server
        self.statuses: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.seconds: list[float] = []  # of good requests

    def check_known(self) -> None:
        seconds, choices = self.server.known()
        self.seconds.append(seconds)
        if choices != self.server.right:
            self.wrong.append(f"a good request got {choices}")

    def check(self, path: str, body: Any) -> None:
        status, answer = self.server.ask("POST", path, body)
        self.statuses[status] += 1
        if status not in (200, 400, 404):
            self.wrong.append(f"{status} for {path} {json.dumps(body)[:2000]}: {answer[:300]!r}")
        elif status != 200 and not json.loads(answer)["error"]["message"]:
            self.wrong.append(f"no reason for {path} {json.dumps(body)[:2000]}")
        elif answer.startswith(b"data:") and not answer.endswith(b"data: [DONE]\n\n") and b'"error"' not in answer:
            self.wrong.append(f"a stream without its end for {json.dumps(body)[:2000]}: {answer[-300:]!r}")

    def report(self) -> dict[str, Any]:
        held = self.server.held()
        if held:
            self.wrong.append(f"{held:.0f} blocks or requests are held afterwards")
        if self.server.process.poll() is not None:
            self.wrong.append(f"the server ended with {self.server.process.returncode}")
        return {
            "statuses": dict(sorted(self.statuses.items())),
            "good_requests": len(self.seconds),
            "good_ms": {"alone": ms(self.server.alone), "between": ms(self.seconds)},
            "wrong": self.wrong[:20],
        }


def ms(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {"p50": round(1e3 * median(ordered), 1), "p99": round(1e3 * ordered[int(0.99 * len(ordered))], 1)}


def by_all_clients(findings: Findings, attacks: list[tuple[str, Any]]) -> None:
    def attack(number: int) -> None:
        if number % 20 == 0:
            findings.check_known()
        findings.check(*attacks[number])

    with ThreadPoolExecutor(CLIENTS) as threads:
        list(threads.map(attack, range(len(attacks))))


def bodies(findings: Findings, rng: random.Random, count: int) -> None:
    paths = rng.choices(PATHS, k=count)
    by_all_clients(findings, [(path, body_for(rng, path)) for path in paths])


def constraints(findings: Findings, rng: random.Random, count: int) -> None:
    def body() -> dict[str, Any]:
        return {**KNOWN, "structured_outputs": constraint(rng), "n": rng.choice([1, 2]), "stream": rng.random() < 0.5}

    by_all_clients(findings, [(COMPLETIONS, body()) for _ in range(count)])


def connections(findings: Findings, rng: random.Random, count: int) -> None:
    """Open all of them; some go on byte by byte, the others say nothing more."""
    with ExitStack() as stack:
        opened = []
        for number in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", findings.server.port), timeout=60))
            opened.append(connection)
            send(connection, rng.choice(SENT))
            if number % 10 == 0:
                findings.check_known()
        for _ in range(100):
            for connection in rng.sample(opened, min(20, len(opened))):
                send(connection, b"a")
            findings.check_known()


def send(connection: socket.socket, data: bytes) -> None:
    try:
        connection.sendall(data)
    except OSError:  # the server has closed it
        return


KINDS: dict[str, Callable[[Findings, random.Random, int], None]] = {
    "bodies": bodies, "constraints": constraints, "connections": connections,
}  # fmt: skip


def fuzz(counts: dict[str, int], seed: int) -> dict[str, Any]:
    """counts: how many of each of KINDS."""
    results = {}
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server:
        for kind, count in counts.items():
            findings, began = Findings(server), time.perf_counter()
            KINDS[kind](findings, random.Random(seed), count)
            results[kind] = {"count": count, "seconds": round(time.perf_counter() - began, 1), **findings.report()}
            print(kind, json.dumps(results[kind], indent=1), flush=True)
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(60)
        errors = [line for line in (Path(folder) / "log").read_text().splitlines() if '"level": "error"' in line]
    return {**results, "exit_code": code, "errors_logged": errors[:20]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bodies", type=int, default=10_000)
    parser.add_argument("--constraints", type=int, default=1_000)
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    counts = {kind: getattr(options, kind) for kind in KINDS if getattr(options, kind)}
    results = fuzz(counts, options.seed)
    write_json(options.results, {"machine": fingerprint(), "seed": options.seed, **results})
    wrong = sum(len(results[kind]["wrong"]) for kind in counts)
    passed = not wrong and not results["exit_code"] and not results["errors_logged"]
    said = ", ".join(f"{count} {kind} {results[kind]['statuses']}" for kind, count in counts.items())
    print(f"{said}; {wrong} wrong; exit code {results['exit_code']}; {'passed' if passed else 'FAILED'}")


if __name__ == "__main__":
    main()
