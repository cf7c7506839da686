"""A server on a free port, in a thread of its own, over a model whose steps a test lets run one by one."""

import asyncio
import contextlib
import http.client
import json
import signal
import socket
import threading
import time
from typing import Any, NamedTuple

import numpy as np
from starlette.requests import Request
from starlette.routing import Route

from helpers.stub_engine import ByteTokenizer, ScriptedRunner
from nano_llama.core.sampling import SamplingParams
from nano_llama.server.bodies import read_json
from nano_llama.server.errors import json_response
from nano_llama.server.run import DrainingServer, bind
from nano_llama.server.service import Service
from nano_llama.server.settings import ServerSettings
from nano_llama.server.streaming import EventStream, collect
from nano_llama.vol3_engine.llm import LLM

SOON = 10.0  # seconds within which things must happen; they take milliseconds on a machine that is not busy


class GatedRunner(ScriptedRunner):
    """Each step waits until the test lets it run: `allow(3)`, or all from now on: `allow()`."""

    def __init__(self, *args: Any, **named: Any):
        super().__init__(*args, **named)
        self._gate = threading.Semaphore(0)
        self._open = False
        self.failure: Exception | None = None  # raised by the next step
        self.broken_logits = False  # of the next step

    def allow(self, steps: int | None = None) -> None:
        if steps is None:
            self._open = True
        self._gate.release(steps or 1)

    def execute(self, batch):
        if not self._open:
            assert self._gate.acquire(timeout=6 * SOON), "a step that nobody allowed"
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        logits = super().execute(batch)
        if self.broken_logits:
            self.broken_logits = False
            logits[:] = np.nan
        return logits

    def close(self) -> None:
        self.allow()
        super().close()


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]


class Served:
    """`with Served() as served: served.post("/test/plain", {"prompt": "..."})`. load: what the server loads."""

    def __init__(self, runner=None, *, load=None, max_num_seqs: int = 2, routes=(), **settings: Any):
        self.runner = runner or GatedRunner()
        self.settings = ServerSettings(port=0, **{"step_seconds": 60.0, "drain_seconds": SOON, **settings})
        self.service = Service(self.settings, ["tiny"])
        self.load = load or (lambda: LLM.from_runner(self.runner, ByteTokenizer(), max_num_seqs=max_num_seqs))
        self.server = DrainingServer(self.service)
        self.server.config.app.router.routes.extend([*TEST_ROUTES, *routes])
        self.ready = threading.Event()
        self.ended = threading.Event()

    def __enter__(self) -> "Served":
        self.socket = bind("127.0.0.1", 0)
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.runner.allow()
        if not self.ended.is_set():
            self.signal()
            self.signal()
        assert self.ended.wait(SOON), "the server did not end"

    def _run(self) -> None:
        try:
            asyncio.run(self.server.run_until_signal(self.load, lambda url: self.ready.set(), self.socket))
        finally:
            self.ended.set()

    def signal(self) -> None:
        """As SIGTERM."""
        self.server.handle_exit(signal.SIGTERM, None)

    # -- clients ----------------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SOON)
        with contextlib.closing(connection):
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        return self.ask("GET", path, None, headers)

    def post(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        return self.ask("POST", path, body or {}, headers)

    def connect(self, *parts: bytes) -> socket.socket:
        """A raw connection, over which these bytes have been sent."""
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=SOON)
        for part in parts:
            raw.sendall(part)
        return raw

    def start(self, path: str, body: Any) -> socket.socket:
        """A request that is on its way, as a raw connection."""
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n\r\n"
        return self.connect(head.encode() + data)

    # -- what the engine does ---------------------------------------------------------------------------------------

    def stats(self):
        return self.service.engine.stats()

    def until(self, condition) -> None:
        """Wait for it; fails when it does not come."""
        until(condition)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.service.metrics.registry.get_sample_value(f"nano_llama:{name}", {"model_name": "tiny", **labels})


def until(condition) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def read_all(raw: socket.socket) -> bytes:
    """Until the other side closes."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := raw.recv(65_536):
            received += piece
    return received


def read_until(raw: socket.socket, ending: bytes) -> bytes:
    received = b""
    while ending not in received:
        piece = raw.recv(65_536)
        assert piece, f"closed before {ending!r}: {received!r}"
        received += piece
    return received


# -- routes of the tests: {"prompt", "n", "max_tokens", "fail"} --------------------------------------------------


async def _submitted(request: Request):
    service: Service = request.app.state.service
    body = await read_json(request)
    service.engine.require_room()
    params = SamplingParams(temperature=0.0, max_tokens=body.get("max_tokens", 8), n=body.get("n", 1), ignore_eos=True)
    prepared = await service.engine.prepare(body["prompt"], params, cache_salt=service.cache_salt(request))
    return body, service.engine.submit([prepared])


async def plain(request: Request):
    _, stream = await _submitted(request)
    [(_, pieces)] = await collect(request, stream)
    return json_response({"text": "".join(piece.text for piece in pieces), "tokens": len(pieces)})


async def streamed(request: Request):
    body, stream = await _submitted(request)

    def chunks(pieces):
        for _, piece in pieces:
            if body.get("fail"):
                raise RuntimeError("a secret of the server")
            yield {"text": piece.text, "index": piece.index, "fill": "x" * body.get("fill", 0)}

    return EventStream(request, stream, chunks, lambda: [{"usage": "last"}])


async def broken(request: Request):
    raise RuntimeError("a secret of the server")


TEST_ROUTES = [
    Route("/test/plain", plain, methods=["POST"]),
    Route("/test/streamed", streamed, methods=["POST"]),
    Route("/test/broken", broken, methods=["POST"]),
]
