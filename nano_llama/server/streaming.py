"""Answers from the engine's Stream, whole or as server-sent events, for clients that may leave at any moment.

Nothing of ASGI tells a handler that its client has gone, unless somebody listens: unless_left does before the engine
has the request, and a Watch from then on, which aborts the engine's work at once, in queue, prefill and decode.
Tests: tests/server/test_streaming.py.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from nano_llama.server.errors import ClientLeft, api_error
from nano_llama.server.metrics import between
from nano_llama.server.service import Service
from nano_llama.vol3_engine.timing import Timing

if TYPE_CHECKING:
    from nano_llama.vol3_engine.async_engine import Stream
    from nano_llama.vol3_engine.outputs import TextPiece
    from nano_llama.vol3_engine.requests import Request

T = TypeVar("T")
Pieces = list[tuple["Request", "TextPiece"]]  # what one step of the engine brought for one HTTP request
Chunks = Iterable[dict[str, Any]]

DONE = b"data: [DONE]\n\n"
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # a proxy that buffers would hold tokens back
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode  # ASCII: no client can cut a character


class Watch:
    """While the engine works for a request: ends it when its client leaves, or when the server gives it up.

    As a context manager around the work. The task is cancelled, as asyncio.timeout does it, and the reason is raised.
    At the end, however it comes, the request is counted and its figures are left for the log.
    """

    def __init__(self, request: HttpRequest, stream: "Stream"):
        self.stream = stream
        self.request_id: str = request.state.request_id
        self._request = request
        self._service: Service = request.app.state.service
        self._reason: Exception | None = None
        self._last_token: dict[tuple[int, int], float] = {}  # when, by request and sample

    async def __aenter__(self) -> "Watch":
        task = asyncio.current_task()
        assert task is not None, "answers are given by tasks"
        self._task = task
        self._listener = asyncio.create_task(self._listen())
        self._service.running.add(self)
        self._service.feed.note(self.request_id, self.stream.requests)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._service.running.discard(self)
        self._listener.cancel()
        self.stream.abort()  # does nothing for what has finished
        for engine_request in self.stream.requests:
            self._service.metrics.ended(engine_request)
        self._request.state.log |= figures(self.stream.requests, self._service.settings.log_prompts)
        if self._reason is None:
            return
        if kind is None:  # the work ended just before the cancellation arrived
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        if kind is None or kind is asyncio.CancelledError:
            self._task.uncancel()
            raise self._reason

    def stop(self, reason: Exception) -> None:
        """End the work now; `reason` is raised where it was awaited."""
        if self._reason is None:
            self._reason = reason
            self.stream.abort()
            self._task.cancel()

    def received(self, pieces: Pieces) -> None:
        """Tokens have come: measure the intervals between them, as a client sees them."""
        now, observe = time.perf_counter(), self._service.metrics.token_interval.observe
        for engine_request, piece in pieces:
            sample = (id(engine_request), piece.index)
            if sample in self._last_token:
                observe(now - self._last_token[sample])
            self._last_token[sample] = now

    async def _listen(self) -> None:
        await left(self._request)
        self.stop(ClientLeft())


async def left(request: HttpRequest) -> None:
    """Wait until the client leaves. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def unless_left(request: HttpRequest, work: Awaitable[T]) -> T:
    """What `work` brings: what is done for a request before the engine has it. Raises ClientLeft if the client leaves
    first; then what still waits for a thread is not begun."""
    tasks = working, _ = asyncio.ensure_future(work), asyncio.create_task(left(request))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft
        return working.result()
    finally:
        for task in tasks:
            task.cancel()


async def collect(request: HttpRequest, stream: "Stream") -> "list[tuple[Request, list[TextPiece]]]":
    """All pieces of a plain answer, by request, in the order of the first piece of each. Raises ClientLeft."""
    collected: dict[int, tuple[Request, list[TextPiece]]] = {}
    async with Watch(request, stream) as watch:
        async for pieces in stream:
            watch.received(pieces)
            for engine_request, piece in pieces:
                collected.setdefault(id(engine_request), (engine_request, []))[1].append(piece)
    return list(collected.values())


class EventStream(Response):
    """Server-sent events: what `chunks` makes of each step's pieces, then `last`, then [DONE].

    One write per step. A failure amid the stream is an event with "error", and then no [DONE]. in_thread: where
    `chunks` may take long.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        request: HttpRequest,
        stream: "Stream",
        chunks: Callable[[Pieces], Chunks],
        last: Callable[[], Chunks] = tuple,
        *,
        in_thread: bool = False,
    ):
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self.request, self.stream, self.chunks, self.last = request, stream, chunks, last
        self.in_thread = in_thread

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        try:
            async with Watch(self.request, self.stream) as watch:
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                started = True
                async for pieces in self.stream:
                    watch.received(pieces)
                    if events := await self._events(pieces):
                        await send({"type": "http.response.body", "body": events, "more_body": True})
                end = encode_events(self.last()) + DONE
        except ClientLeft:
            raise
        except Exception as error:
            if not started:
                raise
            end = encode_events([api_error(error, self.request.state.request_id).body()])
        await send({"type": "http.response.body", "body": end, "more_body": False})

    async def _events(self, pieces: Pieces) -> bytes:
        if self.in_thread:
            return await asyncio.to_thread(lambda: encode_events(self.chunks(pieces)))
        return encode_events(self.chunks(pieces))


def encode_events(chunks: Chunks) -> bytes:
    """Each chunk as one event."""
    return "".join([f"data: {_encode(chunk)}\n\n" for chunk in chunks]).encode("ascii")


def figures(requests: "Sequence[Request]", with_prompts: bool) -> dict[str, Any]:
    """What the log says of the engine's part: whose, how many tokens, how they ended, how long each phase took."""
    timing = Timing.merged(request.timing for request in requests)
    samples = [sequence for request in requests for sequence in request.sequences]
    found: dict[str, Any] = {
        "adapter": requests[0].adapter,
        "prompt_tokens": sum(len(request.prompt_ids) for request in requests),
        "completion_tokens": sum(len(sequence.output_ids) for sequence in samples),
        "finish_reasons": [sequence.finish_reason for sequence in samples],
        "queue_seconds": _rounded(between(timing.arrived, timing.scheduled)),
        "first_token_seconds": _rounded(between(timing.arrived, timing.first_token)),
    }
    if with_prompts:
        found["prompts"] = [request.prompt_ids if request.prompt is None else request.prompt for request in requests]
    return found


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
