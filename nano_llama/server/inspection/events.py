"""POST /inspect/events: what the engine does, step by step, as server-sent events for as long as the client stays.

Tests: tests/server/page/test_inspect_events.py.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from nano_llama.server.inspection.model import of_engine
from nano_llama.server.inspection.schemas import EventsBody
from nano_llama.server.streaming import HEADERS, encode_events
from nano_llama.server.usage import service_of
from nano_llama.server.validation import read_as

if TYPE_CHECKING:
    from nano_llama.server.service import Service

SECONDS = 0.05  # between two writes: as often as a picture is worth drawing anew
QUIET_SECONDS = 10.0  # after which a remark is sent, so that a client which has gone is noticed


async def events(http: HttpRequest) -> Response:
    body = await read_as(http, EventsBody)
    return StreamingResponse(written(service_of(http), body.own), media_type="text/event-stream", headers=HEADERS)


async def written(service: "Service", name: str | None) -> AsyncIterator[bytes]:
    """First the engine's settings, then its events, until the server shuts down."""
    running = [(watch.request_id, watch.stream.requests) for watch in service.running]
    async with service.feed.listen(service.llm.engine, running) as listener:
        yield encode_events([{"event": "began", **of_engine(service.llm)}])
        quiet = 0.0
        while service.state == "ready":
            await asyncio.sleep(SECONDS)
            quiet += SECONDS
            if found := listener.events(name):
                yield encode_events(found)
                quiet = 0.0
            elif quiet >= QUIET_SECONDS:
                yield b": nothing happens\n\n"
                quiet = 0.0
