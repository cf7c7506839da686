"""`nano-llama serve` in a process of its own, which may be killed, stopped, and held short of files and disk."""

import contextlib
import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

SOON = 60.0  # seconds: nano_gpt by NumPy, on a busy machine
PROMPT = "Once upon a time"


class ServerProcess:
    """`with ServerProcess() as server:` nano_gpt on a free port. Greedy texts of it are the same in every process."""

    def __init__(
        self, *options: str, port: int = 0, log: Any = subprocess.PIPE, limits: str = "", script: str = "",
        model: str = "nano_gpt",
    ):  # fmt: skip
        """script: Python that calls nano_llama's main, with something done before."""
        self.model = model
        program = ["-c", script] if script else ["-m", "nano_llama"]
        command = [sys.executable, *program, "serve", "--model", model, "--json", "--port", str(port)]
        command += [*options] if "--engine" in options else ["--engine", "numpy", *options]
        if limits:
            command = ["bash", "-c", f'{limits}; exec "$@"', "bash", *command]
        self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.log: list[str] = []

    def __enter__(self) -> "ServerProcess":
        lines: queue.Queue[str] = queue.Queue()
        assert self.popen.stdout is not None
        threading.Thread(target=lambda: lines.put(self.popen.stdout.readline()), daemon=True).start()
        if self.popen.stderr is not None:
            threading.Thread(target=lambda: self.log.extend(self.popen.stderr), daemon=True).start()
        try:
            first = lines.get(timeout=SOON)
        except queue.Empty:
            first = ""
            self.popen.kill()  # nobody else ends it
        assert first, f"it did not start: {self.log}"
        self.facts = json.loads(first)
        self.port = int(self.facts["url"].rpartition(":")[2])
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.popen.pid, signal.SIGCONT)
        self.popen.kill()
        self.popen.wait(SOON)

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def ends(self) -> int:
        """Its exit code, once it has ended."""
        return self.popen.wait(SOON)

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """-> (status, JSON)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SOON)
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def complete(self, prompt: str = PROMPT, **fields: Any) -> str:
        """The text of a completion, which must be a success."""
        body = {"model": self.model, "prompt": prompt, "max_tokens": 8, "temperature": 0, **fields}
        status, answer = self.request("POST", "/v1/completions", body)
        assert status == 200, answer
        return answer["choices"][0]["text"]

    def stream(self, **fields: Any) -> socket.socket:
        """A completion that streams, as a raw connection."""
        body = {"model": "nano_gpt", "prompt": PROMPT, "temperature": 0, "ignore_eos": True, "stream": True, **fields}
        data = json.dumps(body).encode()
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=SOON)
        raw.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(data) + data
        )
        return raw

    def blocks_held(self) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SOON)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        [line] = [line for line in text.splitlines() if line.startswith("nano_llama:blocks") and '"held"' in line]
        return int(float(line.split()[-1]))

    def is_well(self) -> None:
        """The next good request is served, and nothing is held afterwards."""
        assert self.complete(ignore_eos=True)
        deadline = time.monotonic() + SOON
        while self.blocks_held():
            assert time.monotonic() < deadline, "blocks are held"
            time.sleep(0.01)
