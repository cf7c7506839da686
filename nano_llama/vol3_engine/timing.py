"""When a sequence arrived, started, brought its first token and ended.

The engine writes these down (engine.py); the server's metrics and logs read them. Tests: tests/vol3/test_timing.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass
class Timing:
    """Seconds of time.perf_counter(); None for what has not happened."""

    arrived: float | None = None  # queued
    scheduled: float | None = None  # its first step began
    first_token: float | None = None
    finished: float | None = None

    @classmethod
    def merged(cls, timings: Iterable["Timing"]) -> "Timing":
        """Of several samples together: the earliest of each, but finished only when all are."""
        listed = list(timings)
        return cls(
            min((t.arrived for t in listed if t.arrived is not None), default=None),
            min((t.scheduled for t in listed if t.scheduled is not None), default=None),
            min((t.first_token for t in listed if t.first_token is not None), default=None),
            None if any(t.finished is None for t in listed) else max(t.finished for t in listed if t.finished),
        )
