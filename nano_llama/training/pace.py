"""The pace of a run: how fast it trains, and when the validation loss is due.

Tests: tests/training/test_pace.py.
"""


class Meter:
    """Counts tokens, steps and the seconds they took, and how many of these were spent waiting for data."""

    def __init__(self) -> None:
        self.tokens, self.steps, self.seconds, self.waited = 0, 0, 0.0, 0.0
        self.fastest = 0.0  # tokens/s of the fastest step

    def add(self, tokens: int, seconds: float, waited: float = 0.0) -> None:
        self.tokens, self.steps = self.tokens + tokens, self.steps + 1
        self.seconds, self.waited = self.seconds + seconds, self.waited + waited
        self.fastest = max(self.fastest, tokens / max(seconds, 1e-9))

    @property
    def rate(self) -> float:
        """Tokens/s; 0 before the first step."""
        return self.tokens / max(self.seconds, 1e-9)

    @property
    def stall(self) -> float:
        """The fraction of the time spent waiting for data, 0 to 1."""
        return self.waited / max(self.seconds, 1e-9)

    @property
    def seconds_per_step(self) -> float:
        return self.seconds / max(self.steps, 1)


class EvaluationPlan:
    """When the validation loss is due: `count` times, spread evenly over the run's progress, the last at its end."""

    def __init__(self, count: int, past_progress: float):
        self.wanted = count
        self.done = self._until(past_progress)
        self.last_seconds = 0.0
        self.spent = 0.0

    def due(self, progress: float, over: bool) -> bool:
        """Whether one is due now; asked again at the same progress, no."""
        reached = self._until(progress)
        due = self.wanted > 0 and (over or reached > self.done)
        self.done = max(reached, self.done)
        return due

    def count(self, seconds: float, whole: float = 1.0) -> None:
        """One took so long. If it was given up midway, the whole would have taken `whole` times as long."""
        self.last_seconds = seconds * whole
        self.spent += seconds

    def _until(self, progress: float) -> int:
        return int(progress * self.wanted + 1e-9)
