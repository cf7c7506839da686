"""Worker processes that tokenize units: started as `python -m nano_llama.data.worker FOLDER`, fed through pipes.

Not here: the pool itself (processes.py). Tests: tests/data/test_prepare.py.

A Unit goes in; None comes back when its shard is written.
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path

from nano_llama.data.encode import load_encoder
from nano_llama.data.processes import Processes, run_worker
from nano_llama.data.units import Unit, write_unit


class WorkerPool:
    """A few workers over one folder of shards with its tokenizer. Use as a context manager."""

    def __init__(self, folder: Path, count: int):
        self.count = count
        self.processes = Processes(
            "nano_llama.data.worker", str(folder), count=count,
            hint="If memory ran out, use fewer workers. Run it again: finished shards are kept.",
        )  # fmt: skip

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *failure: object) -> None:
        self.processes.__exit__(*failure)  # a half-written shard leaves only a temporary file

    def run(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """Work through the units; yield each when it is done, in order. Few are in memory at a time."""
        running: deque[tuple[Unit, Future[None]]] = deque()
        for unit in units:
            running.append((unit, self.processes.submit(unit, f"was tokenizing {unit.file}")))
            while len(running) > 2 * self.count or (running and running[0][1].done()):
                yield _finished(running)
        while running:
            yield _finished(running)


def _finished(running: "deque[tuple[Unit, Future[None]]]") -> Unit:
    unit, future = running.popleft()
    future.result()
    return unit


def begin(folder: Path) -> Callable[[Unit], None]:
    """The worker's handler: writes a unit's shard."""
    encode, tokenizer = load_encoder(folder)

    def write(unit: Unit) -> None:
        if not folder.is_dir():
            sys.exit()  # the parent was killed, and a later run has finished the work
        write_unit(folder, unit, encode, tokenizer.vocab_size, tokenizer.eos_id)

    return write


if __name__ == "__main__":
    os.putenv("TOKENIZERS_PARALLELISM", "false")  # for the library: one thread, since the processes are the parallelism
    run_worker(lambda _: begin(Path(sys.argv[1])))
