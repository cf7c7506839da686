"""Answers from the engine's Stream, whole or as server-sent events, for clients that may leave at any moment.

Nothing of ASGI tells a handler that its client has gone, unless somebody listens: a Watch does, and aborts the
engine's work at once, in the queue, in prefill and in decode.
Tests: tests/server/test_app.py.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from nano_llama.server.errors import ClientLeft, api_error
from nano_llama.server.service import Service

if TYPE_CHECKING:
    from nano_llama.vol3_engine.async_engine import Stream
    from nano_llama.vol3_engine.outputs import TextPiece
    from nano_llama.vol3_engine.requests import Request

Pieces = list[tuple["Request", "TextPiece"]]  # what one step of the engine brought for one HTTP request
Chunks = Iterable[dict[str, Any]]

DONE = b"data: [DONE]\n\n"
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # a proxy that buffers would hold tokens back
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode  # ASCII: no client can cut a character


class Watch:
    """While the engine works for a request: ends it when its client leaves, or when the server gives it up.

    As a context manager around the work. The task is cancelled, as asyncio.timeout does it, and the reason is raised.
    """

    def __init__(self, request: HttpRequest, stream: "Stream"):
        self.stream = stream
        self._receive = request.receive
        self._running: set[Watch] = request.app.state.service.running
        self._reason: Exception | None = None

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "answers are given by tasks"
        self._task = task
        self._listener = asyncio.create_task(self._listen())
        self._running.add(self)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._running.discard(self)
        self._listener.cancel()
        self.stream.abort()  # does nothing for what has finished
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

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.stop(ClientLeft())


async def collect(request: HttpRequest, stream: "Stream") -> "list[tuple[Request, list[TextPiece]]]":
    """All pieces of a plain answer, by request, in the order of the first piece of each. Raises ClientLeft."""
    collected: dict[int, tuple[Request, list[TextPiece]]] = {}
    async with Watch(request, stream):
        async for pieces in stream:
            for engine_request, piece in pieces:
                collected.setdefault(id(engine_request), (engine_request, []))[1].append(piece)
    return list(collected.values())


class EventStream(Response):
    """Server-sent events: what `chunks` makes of each step's pieces, then `last`, then [DONE].

    One write per step. A failure amid the stream is an event with "error", and then no [DONE].
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        request: HttpRequest,
        stream: "Stream",
        chunks: Callable[[Pieces], Chunks],
        last: Callable[[], Chunks] = tuple,
    ):
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self.request, self.stream, self.chunks, self.last = request, stream, chunks, last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with Watch(self.request, self.stream):
                async for pieces in self.stream:
                    if events := encode_events(self.chunks(pieces)):
                        await send({"type": "http.response.body", "body": events, "more_body": True})
                end = encode_events(self.last()) + DONE
        except ClientLeft:
            raise
        except Exception as error:
            end = encode_events([api_error(error, getattr(self.request.state, "request_id", "")).body()])
        await send({"type": "http.response.body", "body": end, "more_body": False})


def encode_events(chunks: Chunks) -> bytes:
    """Each chunk as one event."""
    return "".join([f"data: {_encode(chunk)}\n\n" for chunk in chunks]).encode("ascii")


def service_of(request: HttpRequest) -> Service:
    return request.app.state.service
