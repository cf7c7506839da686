"""Batches made in advance by worker processes: `python -m nano_llama.data.prefetch`, driven through pipes.

Batch number p is a function of the seed and p alone (batches.py), so workers need no order among themselves: each makes
the batch it is asked for, and the stream is the same, bit for bit, for any number of them, from any position on.
Tests: tests/data/test_prefetch.py.

The BatchStream goes in first, then positions; batches come back.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import IO

from nano_llama.data.batches import Batch, BatchStream
from nano_llama.data.processes import Processes, receive, run_worker

AHEAD = 4  # batches per worker that are made before they are needed


class Prefetcher:
    """Stands in for `batches`, whose next ones `workers` processes make ahead. Use as a context manager.

    Raises EnvironmentFault if a worker has ended; the stream's position is then unchanged.
    """

    def __init__(self, batches: BatchStream, workers: int):
        self.batches = batches
        self.position = batches.position
        self.ahead = AHEAD * workers
        self.processes = Processes(
            "nano_llama.data.prefetch", count=workers, greeting=batches,
            hint="Progress is saved: the same command with --resume continues. If memory ran out, use fewer:"
            "  --data-workers 0  makes batches in the process itself.",
        )  # fmt: skip
        self.coming: deque[Future[Batch]] = deque()  # batches position, position + 1, ...
        self._ask()

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, *failure: object) -> None:
        self.processes.__exit__(*failure)

    def next(self) -> Batch:
        """The next batch, as `Batches.next` gives it."""
        batch = self.coming[0].result()
        self.coming.popleft()
        self.position += 1
        self._ask()
        return batch

    def seek(self, position: int) -> None:
        """Continue as if `position` batches had been drawn."""
        if position != self.position:
            for future in self.coming:
                future.cancel()
            self.coming.clear()
            self.position = position
            self._ask()

    def _ask(self) -> None:
        while len(self.coming) < self.ahead:
            position = self.position + len(self.coming)
            self.coming.append(self.processes.submit(position, "was making batches"))


def begin(requests: IO[bytes]) -> Callable[[int], Batch]:
    """The worker's handler: position -> batch."""
    batches: BatchStream = receive(requests)
    return batches.at


if __name__ == "__main__":
    run_worker(begin)
