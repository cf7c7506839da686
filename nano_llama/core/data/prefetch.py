"""Batches made ahead by worker processes: `python -m nano_llama.core.data.prefetch`, asked through pipes.

Batch number p is a function of the seed and p alone (batches.py), so workers need no order among themselves: each makes
the batch it is asked for, and the stream is the same, bit for bit, for any number of them, from any position on.
Not here: moving batches to a device (the engines). Tests: tests/core/data/test_prefetch.py.

Messages go as in worker.py, which says why these are no `multiprocessing` workers: the Batches itself first, then
positions; batches come back, or an error of ours.
"""

import os
import queue
import subprocess
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import IO

from nano_llama.core.data.batches import Batch, Batches
from nano_llama.core.data.worker import receive, send
from nano_llama.core.errors import EnvironmentFault, NanoLlamaError

AHEAD = 4  # batches a worker that are made before they are wanted


class Prefetcher:
    """Stands in for `batches`, whose next ones `workers` processes make ahead. Use as a context manager.

    Raises EnvironmentFault where a worker has ended; the stream then stands where it stood.
    """

    def __init__(self, batches: Batches, workers: int):
        self.batches = batches
        self.position = batches.position
        command = [sys.executable, "-m", "nano_llama.core.data.prefetch"]
        pipe = subprocess.PIPE
        # A session of their own: Ctrl-C in the terminal is ours to answer.
        self.workers = [
            subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True) for _ in range(workers)
        ]
        self.idle: queue.SimpleQueue[subprocess.Popen] = queue.SimpleQueue()
        self.threads = ThreadPoolExecutor(workers, thread_name_prefix="data")  # one waits on each worker
        self.coming: deque[Future[Batch]] = deque()  # batches position, position + 1, ...
        for worker in self.workers:
            assert worker.stdin is not None
            with suppress(OSError):  # one that has ended already is noticed when it is asked
                send(worker.stdin, batches)
            self.idle.put(worker)
        self._ask()

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, *failure: object) -> None:
        for worker in self.workers:
            worker.kill()  # they hold nothing that could be lost
        self.threads.shutdown(wait=True, cancel_futures=True)
        for worker in self.workers:
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                assert pipe is not None
                with suppress(OSError):  # closing flushes, and nobody listens any more
                    pipe.close()

    def next(self) -> Batch:
        """The next batch, as `Batches.next` gives it."""
        batch = self.coming[0].result()
        self.coming.popleft()
        self.position += 1
        self._ask()
        return batch

    def seek(self, position: int) -> None:
        """Go on as if `position` batches had been drawn."""
        if position != self.position:
            for future in self.coming:
                future.cancel()
            self.coming.clear()
            self.position = position
            self._ask()

    def _ask(self) -> None:
        while len(self.coming) < AHEAD * len(self.workers):
            self.coming.append(self.threads.submit(self._make, self.position + len(self.coming)))

    def _make(self, position: int) -> Batch:
        worker = self.idle.get()
        try:
            assert worker.stdin is not None and worker.stdout is not None
            send(worker.stdin, position)
            answer = receive(worker.stdout)
        except (OSError, EOFError) as error:
            code = worker.wait()
            raise EnvironmentFault(
                f"A worker that made batches ended with code {code}.",
                hint="If memory ran out, use fewer: --set data_workers=0 makes them in the process itself.",
            ) from error
        finally:
            self.idle.put(worker)  # a dead one too: whoever takes it fails at once, and nobody waits for ever
        if isinstance(answer, NanoLlamaError):
            raise answer
        return answer


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """What a worker does until its requests end."""
    with suppress(EOFError):
        batches: Batches = receive(requests)
        while True:
            position = receive(requests)
            try:
                answer: Batch | NanoLlamaError = batches.at(position)
            except NanoLlamaError as error:
                answer = error
            send(answers, answer)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes to stderr: stdout carries answers only
    try:
        serve(sys.stdin.buffer, answers)
    except (KeyboardInterrupt, BrokenPipeError):  # the parent tells the user
        os._exit(130)
