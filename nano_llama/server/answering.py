"""From the engine's stream to the response: whole, or chunk by chunk.

Tests: tests/server/test_api_streams.py.
"""

import asyncio
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from nano_llama.server.errors import json_response
from nano_llama.server.streaming import EventStream, collect
from nano_llama.server.usage import Pieces

if TYPE_CHECKING:
    from nano_llama.vol3_engine.async_engine import Stream


class Answer(Protocol):
    """CompletionAnswer and ChatAnswer: what the pieces add, what comes last, or all in one."""

    def chunks(self, pieces: Pieces) -> Iterator[dict[str, Any]]: ...

    def last(self) -> Iterable[dict[str, Any]]: ...

    def whole(self, pieces: Pieces) -> dict[str, Any]: ...


async def respond(http: HttpRequest, stream: "Stream", answer: Answer, *, streamed: bool, long: bool) -> Response:
    """long: it may have the logprobs of thousands of tokens, which take a second to write. Then a thread does it, so
    that the event loop goes on."""
    if streamed:
        return EventStream(http, stream, answer.chunks, answer.last, in_thread=long)
    pieces = [(request, piece) for request, own in await collect(http, stream) for piece in own]

    def write() -> Response:
        return json_response(answer.whole(pieces))

    return await asyncio.to_thread(write) if long else write()
