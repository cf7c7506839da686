"""Feed: the engine's events for those who listen, each with its own requests by name and of the others only counts.

While nobody listens the engine has no trace to call, and nothing is kept. Whose a sequence is, is said by the id of its
HTTP request: a client that listens gives a name, and calls its requests NAME-something (x-request-id).
A listener may ask that the runner time the phases of its steps: then all see them, until the last such one leaves.
Not here: what an event says (vol3_engine/trace.py). Tests: tests/server/page/test_inspect_events.py.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from nano_llama.vol3_engine.trace import RecentEvents

if TYPE_CHECKING:
    from nano_llama.vol3_engine.engine import Engine
    from nano_llama.vol3_engine.requests import Request
    from nano_llama.vol3_engine.runner import Runner
    from nano_llama.vol3_engine.scheduler import Scheduler
    from nano_llama.vol3_engine.sequence import Sequence as Sample

EVENTS = 4096  # that are kept for listeners who are slow
SEQUENCES = 4096  # whose owner is known

Event = dict[str, Any]
Owned = tuple[str, "Sequence[Request]"]  # the id of an HTTP request, and what the engine has of it


class StepEvents(RecentEvents):
    """A step says too how long each of its phases took, while the runner times them: "phases": {name: seconds}."""

    def __init__(self, runner: "Runner"):
        super().__init__(EVENTS)
        self._runner = runner
        self._seconds: dict[str, float] = {}  # the runner's own, so far
        self._before: dict[str, float] = {}

    def began(self, scheduler: "Scheduler") -> None:
        self._phases()
        super().began(scheduler)

    def emit(self, event: Event) -> None:
        phases = self._phases() if event["event"] == "step" else {}
        super().emit({**event, "phases": phases} if phases else event)

    def _phases(self) -> dict[str, float]:
        """Since it was asked last, or since the timing began anew."""
        seconds = getattr(self._runner, "seconds", {})
        before = self._before if seconds is self._seconds else {}
        self._seconds, self._before = seconds, dict(seconds)
        return {name: round(value - before.get(name, 0.0), 7) for name, value in seconds.items()}


class Feed:
    """Of one server. All methods are called in the event loop."""

    def __init__(self) -> None:
        self._recent: RecentEvents | None = None  # None: nobody listens
        self._listeners = self._timed = 0  # those of them who want phases timed
        self._submitted: list[tuple[Sample, str]] = []  # the engine has not numbered them yet
        self._owners: dict[int, str] = {}  # the id of the HTTP request by the number of the sequence

    @asynccontextmanager
    async def listen(
        self, engine: "Engine", running: Iterable[Owned], time_phases: bool = False
    ) -> AsyncIterator["Listener"]:
        """running: what the engine has already."""
        self._listeners += 1
        self._timed += time_phases
        if self._recent is None:
            self._recent = StepEvents(engine.runner)
            await asyncio.to_thread(engine.subscribe, self._recent)  # which waits for the step that runs
        recent = self._recent
        if time_phases:
            await asyncio.to_thread(engine.time_phases, self._timing)
        for request_id, requests in running:
            self.note(request_id, requests)
        try:
            yield Listener(self, recent)
        finally:
            self._listeners -= 1
            self._timed -= time_phases
            if time_phases:
                asyncio.get_running_loop().run_in_executor(None, engine.time_phases, self._timing)
            if not self._listeners:
                self._recent, self._submitted, self._owners = None, [], {}
                asyncio.get_running_loop().run_in_executor(None, engine.unsubscribe, recent)

    def _timing(self) -> bool:
        return self._timed > 0

    def note(self, request_id: str, requests: "Sequence[Request]") -> None:
        """The engine has these requests. Does nothing while nobody listens."""
        if self._listeners:
            self._submitted += [(sample, request_id) for request in requests for sample in request.sequences]

    def owners(self) -> dict[int, str]:
        """{number of a sequence: id of its HTTP request}"""
        numbered = [entry for entry in self._submitted if entry[0].number >= 0]
        self._submitted = [entry for entry in self._submitted if entry[0].number < 0]
        self._owners |= {sample.number: request_id for sample, request_id in numbered}
        for number in list(self._owners)[:-SEQUENCES]:
            del self._owners[number]
        return self._owners


class Listener:
    """One of those who listen: what is new since it asked last."""

    def __init__(self, feed: Feed, recent: RecentEvents):
        self._feed, self._recent = feed, recent
        self._next = max((number for number, _ in recent.since(0)), default=-1) + 1

    def events(self, name: str | None) -> list[Event]:
        """As a client sees them whose requests are called NAME-something."""
        found = self._recent.since(self._next)
        if not found:
            return []
        self._next = found[-1][0] + 1
        own = {number: id for number, id in self._feed.owners().items() if name and id.startswith(f"{name}-")}
        return [seen for _, event in found if (seen := for_owner(event, own)) is not None]


def for_owner(event: Event, own: dict[int, str]) -> Event | None:
    """The event with what concerns these sequences, and counts of the rest; None: it concerns others only.

    start: a row's place in the packed batch. Of the others, context: the tokens that they attend to, tokens: how many
    they sample.
    """
    if event["event"] != "step":
        number = event.get("sequence")
        return {**event, "own": own[number]} if number in own else None
    starts = accumulate((row["count"] for row in event["rows"]), initial=0)
    numbered = [{**row, "start": start} for row, start in zip(event["rows"], starts, strict=False)]
    rows = [{**row, "own": own[row["sequence"]]} for row in numbered if row["sequence"] in own]
    others = [row for row in numbered if row["sequence"] not in own]
    return {
        **event,
        "rows": rows,
        "others": {
            "sequences": len(others),
            "rows": sum(row["count"] for row in others),
            "blocks": len({block for row in others for block in row["blocks"]}),
            "context": sum(row["position"] + row["count"] for row in others),
            "tokens": sum(row["chooses"] for row in others),
        },
        "prefix_hits": {number: tokens for number, tokens in event["prefix_hits"].items() if number in own},
        "preempted": [number for number in event["preempted"] if number in own],
    }
