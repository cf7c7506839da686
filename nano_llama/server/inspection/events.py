"""POST /inspect/events: what the engine does, step by step, as server-sent events for as long as the client stays; or
what one did, from a trace (serve --replay).

Tests: tests/server/page/test_inspect_events.py.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from nano_llama.server.errors import ApiError
from nano_llama.server.feed import Event, for_owner
from nano_llama.server.inspection.model import of_engine
from nano_llama.server.inspection.roofline import phases_of
from nano_llama.server.inspection.schemas import EventsBody
from nano_llama.server.streaming import HEADERS, encode_events
from nano_llama.server.usage import service_of
from nano_llama.server.validation import read_as

if TYPE_CHECKING:
    from nano_llama.server.service import Service

SECONDS = 0.05  # between two writes: as often as a picture is worth drawing anew
PAUSE_SECONDS = 1.0  # the longest of a trace that is played
QUIET_SECONDS = 10.0  # after which a remark is sent, so that a client which has gone is noticed


async def events(http: HttpRequest) -> Response:
    body = await read_as(http, EventsBody)
    service = service_of(http)
    if body.time_phases and (service.trace is not None or not phases_of(service.llm.engine.runner)):
        raise ApiError(400, "No phases of steps are timed here.", param="time_phases", code="unsupported")
    source = written(service, body) if service.trace is None else recorded(service, service.trace)
    return StreamingResponse(source, media_type="text/event-stream", headers=HEADERS)


async def recorded(service: "Service", trace: Sequence[Event]) -> AsyncIterator[bytes]:
    """A trace's events at the pace at which they came, without long pauses; all of it is shown. "over" ends it."""
    everybody = {event["sequence"]: "recorded" for event in trace if event["event"] == "arrived"}
    due, last, waiting = 0.0, 0.0, list[Event]()
    yield encode_events([{**trace[0], "recorded": True}])
    for event in trace[1:]:
        if "t" not in event:
            continue  # a trace that was begun anew
        due += min(max(event["t"] - last, 0.0), PAUSE_SECONDS)
        last = event["t"]
        if due >= SECONDS:
            if waiting:
                yield encode_events(waiting)
            await asyncio.sleep(due)
            due, waiting = 0.0, []
            if service.state != "ready":
                return
        waiting += filter(None, [for_owner(event, everybody)])
    yield encode_events([*waiting, {"event": "over"}])


async def written(service: "Service", body: EventsBody) -> AsyncIterator[bytes]:
    """First the engine's settings, then its events, until the server shuts down."""
    running = [(watch.request_id, watch.stream.requests) for watch in service.running]
    async with service.feed.listen(service.llm.engine, running, bool(body.time_phases)) as listener:
        yield encode_events([{"event": "began", **of_engine(service.llm)}])
        quiet = 0.0
        while service.state == "ready":
            await asyncio.sleep(SECONDS)
            quiet += SECONDS
            if found := listener.events(body.own):
                yield encode_events(found)
                quiet = 0.0
            elif quiet >= QUIET_SECONDS:
                yield b": nothing happens\n\n"
                quiet = 0.0
