"""The batches of one step after the other, and how long each step takes; ahead, for a device that computes by itself.

    feed.next()     what the next update is made from
    feed.ended()    it was made: the seconds that the step took
    feed.begin()    starts on the next gradient, if the backend does that, and fetches what comes behind it meanwhile

What is ahead changes nothing: until a step is counted, the run's state does not know that its batches were drawn.
Tests: tests/training/test_step_feed.py.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from nano_llama.data.batches import Batch
from nano_llama.training.backend import Backend
from nano_llama.training.budget import Clock


class Stream(Protocol):
    """A BatchStream, or a Prefetcher in its place."""

    @property
    def position(self) -> int: ...

    def next(self) -> Batch: ...


class Drawn(NamedTuple):
    """A step's batches. position: of the stream, behind them."""

    batches: Sequence[Batch]
    position: int


class StepFeed:
    """accumulate: batches of a step. now: tells the time."""

    def __init__(self, stream: Stream, accumulate: int, backend: Backend, now: Clock):
        self.stream, self.accumulate, self.backend, self.now = stream, accumulate, backend, now
        self.coming: deque[Drawn] = deque()  # what was drawn ahead
        self.ahead = False  # whether the backend has begun with the first of these
        self.since: float | None = None  # when the step began; None: it has not
        self.asked = 0.0  # when its batches were
        self.drawing = 0.0  # seconds of the step in which batches were drawn

    def next(self) -> Drawn:
        """Of the step that is made now; once more if those were bad and are skipped."""
        if self.since is None:
            self.since = self.now()
        drawn = self.coming.popleft() if self.coming else self._draw()
        self.asked = self.now()
        return drawn

    def ended(self) -> tuple[float, float]:
        """-> seconds that the step took, and of these how many it waited for its data.

        What was drawn while the device computed was not waited for if the device then took longer than that.
        """
        assert self.since is not None, "a step that was begun"
        now = self.now()
        waited = max(0.0, self.drawing - (now - self.asked)) if self.ahead else self.drawing
        seconds = now - self.since
        self.since, self.ahead, self.drawing = None, False, 0.0
        return seconds, waited

    def begin(self) -> None:
        """Nothing is due before the next step."""
        device = self.backend.ahead
        if device is None:
            return
        self.since = self.now()
        if not self.coming:
            self.coming.append(self._draw())
        device.begin(self.coming[0].batches)
        self.ahead = True
        self.coming.append(self._draw())
        device.prefetch(self.coming[-1].batches)

    def _draw(self) -> Drawn:
        begin = self.now()
        batches = [self.stream.next() for _ in range(self.accumulate)]
        self.drawing += self.now() - begin
        return Drawn(batches, self.stream.position)
