"""/inspect/roofline: what a step reads from memory, and how fast this machine's memory delivers it.

GET says what is known. POST measures the memory bandwidth, once in a server's life: it takes a moment and all of it, so
it waits until nothing runs, and what requests have disturbed does not count.
Not here: how long steps take (events.py), the measurement (vol3_engine/roofline.py).
Tests: tests/server/page/test_inspect_roofline.py.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from nano_llama.core.machine import available_bytes, usable_cores
from nano_llama.server.errors import ApiError, json_response
from nano_llama.server.inspection.schemas import RooflineBody
from nano_llama.server.usage import service_of
from nano_llama.server.validation import read_as

if TYPE_CHECKING:
    from nano_llama.server.service import Service
    from nano_llama.vol3_engine.runner import Runner

NEEDED = 2**30  # bytes that must be free: more than twice what the measurement takes


async def roofline(http: HttpRequest) -> Response:
    service = service_of(http)
    if service.trace is not None:
        raise ApiError(400, "A trace is shown, which says nothing about memory.", code="unsupported")
    if http.method == "POST":
        await read_as(http, RooflineBody)
        async with service.measuring:
            if service.bandwidth is None:
                service.bandwidth = await measured(service)
    return json_response(describe(service))


def describe(service: "Service") -> dict[str, Any]:
    runner = service.llm.engine.runner
    return {
        "runner": type(runner).__name__,
        "weight_bytes": runner.weight_bytes,
        "kv_bytes_per_token": runner.kv_bytes_per_token,
        "threads": threads_of(runner),
        "bandwidth": service.bandwidth,  # bytes/s; None: not measured
        "phases": phases_of(runner),
    }


async def measured(service: "Service") -> float | None:
    """Bytes/s; None: the engine was at work. Raises ApiError where it cannot be measured at all."""
    runner, engine = service.llm.engine.runner, service.engine
    if str(getattr(getattr(runner, "model", None), "device", "cpu")) != "cpu":
        raise ApiError(400, "The weights are in a GPU's memory, which is not measured here.", code="unsupported")
    available = available_bytes()
    if available is not None and available < NEEDED:
        raise ApiError(400, "This machine has too little free memory to measure how fast it is.", code="unsupported")
    if engine.stats().busy:
        return None
    from nano_llama.vol3_engine.roofline import read_bandwidth

    steps = engine.stats().steps
    found = await asyncio.to_thread(read_bandwidth, threads_of(runner))
    return None if engine.stats().busy or engine.stats().steps != steps else found


def threads_of(runner: "Runner") -> int:
    return getattr(runner, "threads", None) or usable_cores()


def phases_of(runner: "Runner") -> list[str] | None:
    """The parts of a step that the runner can time, in their order; None: it cannot."""
    return list(runner.phases) if hasattr(runner, "phases") else None
