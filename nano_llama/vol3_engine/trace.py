"""The engine's trace: what the scheduler decided, event by event, so that a run can be replayed or watched on a page.

Trace writes the events to a file, one JSON object per line; RecentEvents keeps the last ones in memory.

    {"event": "began", "version": 1, "block_size", "num_blocks", "max_num_seqs", "max_num_batched_tokens"}
    {"event": "arrived", "t", "sequence", "request", "adapter", "prompt_tokens", "max_length"}
    {"event": "step", "t", "step", "rows": [{"sequence", "position", "count", "blocks": [...], "chooses"}],
                      "prefix_hits": {sequence: tokens}, "preempted": [sequence],
                      "blocks": {"held", "kept", "empty"}, "running", "waiting", "seconds"}
    {"event": "ended", "t", "sequence", "tokens", "reason"}         reason: stop, length or abort

t: seconds since the start. sequence: its number in order of arrival. rows: one entry per sequence of the step, in the
order of the batch: the position of its first row, how many rows, its whole block table, and whether it samples a token
("chooses"). blocks: how many are in use ("held"), evictable ("kept") and free ("empty"). seconds: how long the
step took, from its scheduling on; t is when it ended.
Not here: reading such a file (trace_files.py), the trace of a model's activations (vol1_numpy/traces.py,
vol2_torch/traces.py).
Tests: tests/vol3/test_trace.py.
"""

import json
import time
import warnings
from collections import deque
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from nano_llama.core.errors import EnvironmentFault
from nano_llama.vol3_engine.blocks import BLOCK_SIZE
from nano_llama.vol3_engine.scheduler import ScheduledStep, Scheduler
from nano_llama.vol3_engine.sequence import Sequence


class NoTrace:
    """The no-op tracer. Its methods are called in the engine's thread, with the engine's lock held."""

    def began(self, scheduler: Scheduler) -> None: ...

    def arrived(self, sequence: Sequence) -> None: ...

    def stepped(self, step: ScheduledStep, scheduler: Scheduler) -> None: ...

    def ended(self, sequence: Sequence) -> None: ...

    def close(self) -> None: ...


class EventTrace(NoTrace):
    """Makes the events above, and hands each to `emit`."""

    def __init__(self) -> None:
        self.start, self.steps = time.perf_counter(), 0

    def emit(self, event: dict[str, Any]) -> None:
        raise NotImplementedError

    def began(self, scheduler: Scheduler) -> None:
        self._emit(
            "began", version=1, block_size=BLOCK_SIZE, num_blocks=scheduler.pool.num_blocks,
            max_num_seqs=scheduler.max_num_seqs, max_num_batched_tokens=scheduler.max_num_batched_tokens,
        )  # fmt: skip

    def arrived(self, sequence: Sequence) -> None:
        self._emit(
            "arrived", t=self._now(), sequence=sequence.number, request=sequence.request, adapter=sequence.adapter,
            prompt_tokens=len(sequence.prompt_ids), max_length=sequence.max_length,
        )  # fmt: skip

    def stepped(self, step: ScheduledStep, scheduler: Scheduler) -> None:
        batch, pool, sampling = step.batch, scheduler.pool, set(step.sampling)
        rows = [
            {
                "sequence": sequence.number, "position": batch.positions[s], "count": step.counts[s],
                "blocks": batch.block_tables[s], "chooses": sequence in sampling,
            }
            for s, sequence in enumerate(step.sequences)
        ]  # fmt: skip
        in_use, evictable = len(pool.ref_counts), pool.num_evictable
        self._emit(
            "step", t=self._now(), step=self.steps, rows=rows, prefix_hits=step.prefix_hits, preempted=step.preempted,
            blocks={"held": in_use, "kept": evictable, "empty": pool.num_blocks - in_use - evictable},
            running=len(scheduler.running), waiting=len(scheduler.waiting),
            seconds=round(time.perf_counter() - step.began, 6),
        )  # fmt: skip
        self.steps += 1

    def ended(self, sequence: Sequence) -> None:
        self._emit(
            "ended", t=self._now(), sequence=sequence.number, tokens=len(sequence.output_ids),
            reason=sequence.finish_reason,
        )  # fmt: skip

    def _now(self) -> float:
        return round(time.perf_counter() - self.start, 6)

    def _emit(self, event: str, **fields: Any) -> None:
        self.emit({"event": event, **fields})


class RecentEvents(EventTrace):
    """The last `capacity` events, numbered from 0. Reading and writing never wait for each other."""

    def __init__(self, capacity: int = 4096):
        super().__init__()
        self._events: deque[tuple[int, dict[str, Any]]] = deque(maxlen=capacity)
        self._numbers = count()

    def emit(self, event: dict[str, Any]) -> None:
        self._events.append((next(self._numbers), event))

    def since(self, number: int) -> list[tuple[int, dict[str, Any]]]:
        """(number, event) of those from `number` on that are still kept. Gaps show what came too fast to be kept."""
        return [entry for entry in self._events.copy() if entry[0] >= number]


class Trace(EventTrace):
    """Writes the events to `path`. Raises EnvironmentFault if it cannot be opened.

    A write that fails later, say on a full disk, ends the trace with a warning; the engine goes on.
    """

    def __init__(self, path: str | Path):
        try:
            self.file = Path(path).open("w", encoding="utf-8")  # noqa: SIM115  (closed by `close`)
        except OSError as error:
            raise EnvironmentFault(
                f"The trace {path} cannot be written: {error.strerror}.",
                hint="Give a path in a folder that you may write to.",
            ) from error
        super().__init__()

    def close(self) -> None:
        with suppress(OSError):  # what could not be written before cannot be flushed now
            self.file.close()

    def emit(self, event: dict[str, Any]) -> None:
        if self.file.closed:
            return
        try:
            self.file.write(json.dumps(event) + "\n")
            self.file.flush()
        except OSError as error:
            warnings.warn(f"The trace {self.file.name} ends here: {error.strerror}.", stacklevel=2)
            self.close()
