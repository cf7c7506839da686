"""EngineStats: what the engine is doing and has done, as a snapshot that takes no lock.

A Meter is a trace (trace.py) that counts. Its numbers are written by the engine's thread and read by any other: each
is right by itself, and two of them may be a step apart. Tests: tests/vol3/test_statistics.py.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from nano_llama.vol3_engine.scheduler import ScheduledStep, Scheduler
from nano_llama.vol3_engine.sequence import Sequence
from nano_llama.vol3_engine.trace import NoTrace

RECENT = 10.0  # seconds over which speeds are reckoned
LONG = 60.0  # the same for what happens seldom: the end of a sequence


@dataclass(frozen=True, kw_only=True)
class EngineStats:
    """Tokens are counted since the start; sequences and blocks are those of the last step."""

    running: int  # sequences that have blocks
    waiting: int  # sequences that wait for blocks, or for a place
    waiting_tokens: int  # prompt tokens of the requests that have not started
    busy: bool  # whether there is anything to compute
    blocks_total: int
    blocks_held: int  # in use
    blocks_kept: int  # evictable: full ones that a later prompt may share
    blocks_empty: int
    steps: int
    seconds_since_step: float | None  # None before the first
    prompt_tokens: int  # of samples that have begun to answer, also those from the prefix cache: as vLLM counts
    generation_tokens: int
    tokens_per_second: float  # generated, over the last seconds
    prefix_queries: int  # prompt tokens that were looked up in the prefix cache
    prefix_hits: int  # of them, found
    preemptions: int


class Meter(NoTrace):
    """Counts. `clock` is time.perf_counter unless a test says otherwise."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self.steps = self.prompt_tokens = self.generation_tokens = 0
        self.prefix_queries = self.prefix_hits = self.preemptions = 0
        self.last_step: float | None = None
        self._recent: deque[tuple[float, int]] = deque(maxlen=4096)  # (when, tokens of the step)
        self._ends: deque[tuple[float, int]] = deque(maxlen=256)  # (when, 1)

    def arrived(self, sequence: Sequence) -> None:
        self.prefix_queries += len(sequence.prompt_ids)

    def stepped(self, step: ScheduledStep, scheduler: Scheduler) -> None:
        self.steps += 1
        self.last_step = self._clock()
        self.prompt_tokens += sum(len(s.prompt_ids) for s in step.sampling if len(s.output_ids) == 1)
        self.generation_tokens += len(step.sampling)
        self.prefix_hits += sum(step.prefix_hits.values())
        self.preemptions += len(step.preempted)
        self._recent.append((self.last_step, len(step.sampling)))

    def ended(self, sequence: Sequence) -> None:
        self._ends.append((self._clock(), 1))

    @property
    def tokens_per_second(self) -> float:
        return self._rate(self._recent, RECENT)

    @property
    def ends_per_second(self) -> float:
        """How fast sequences end, those that were aborted too; 0 if fewer than two did so within a minute."""
        return self._rate(self._ends, LONG)

    def _rate(self, counts: deque[tuple[float, int]], seconds: float) -> float:
        """Over the last `seconds`, from the first count within them on."""
        now = self._clock()
        recent = [(when, count) for when, count in counts.copy() if now - when < seconds]
        return sum(count for _, count in recent) / max(now - recent[0][0], 1e-3) if len(recent) > 1 else 0.0

    @property
    def seconds_since_step(self) -> float | None:
        last = self.last_step
        return None if last is None else self._clock() - last
