"""Worker processes that tokenize units: started as `python -m nano_llama.core.data.worker FOLDER`, fed through pipes.

Not here: threads or `multiprocessing`. Its pool would import the user's script again (which then needs a guard), and
its workers outlive a parent that was killed; ours end when their pipe closes. Tests: tests/core/data/test_prepare.py.

Messages are pickles, behind their length: a Unit goes in, None or an error of ours comes back.
"""

import os
import pickle
import queue
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from nano_llama.core.data.units import Unit, write_unit
from nano_llama.core.errors import EnvironmentFault, NanoLlamaError

_LENGTH = struct.Struct("<Q")


class WorkerPool:
    """A few workers over one folder of shards with its tokenizer. Use as a context manager."""

    def __init__(self, folder: Path, count: int):
        command = [sys.executable, "-m", "nano_llama.core.data.worker", str(folder)]
        pipe = subprocess.PIPE
        # A session of their own: Ctrl-C in the terminal is ours to answer.
        self.workers = [
            subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True) for _ in range(count)
        ]
        self.idle: queue.SimpleQueue[subprocess.Popen] = queue.SimpleQueue()
        for worker in self.workers:
            self.idle.put(worker)
        self.threads = ThreadPoolExecutor(count)  # one waits on each worker

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *failure: object) -> None:
        for worker in self.workers:
            worker.kill()  # idle by now, or no longer wanted: a half-written shard leaves only a temporary file
        self.threads.shutdown(wait=True, cancel_futures=True)
        for worker in self.workers:
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                assert pipe is not None
                with suppress(OSError):  # closing flushes, and nobody listens any more
                    pipe.close()

    def run(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """Work through the units; yield each when it is done, in their order. Few are in memory at a time."""
        running: deque[tuple[Unit, Future[None]]] = deque()
        for unit in units:
            running.append((unit, self.threads.submit(self._do, unit)))
            while len(running) > 2 * len(self.workers) or (running and running[0][1].done()):
                yield _finished(running)
        while running:
            yield _finished(running)

    def _do(self, unit: Unit) -> None:
        worker = self.idle.get()
        try:
            assert worker.stdin is not None and worker.stdout is not None
            send(worker.stdin, unit)
            answer = receive(worker.stdout)
        except (OSError, EOFError) as error:
            code = worker.wait()
            raise EnvironmentFault(
                f"A worker that was tokenizing {unit.file} ended with code {code}.",
                hint="If memory ran out, use fewer workers. Run it again: the shards that are done are kept.",
            ) from error
        finally:
            self.idle.put(worker)  # a dead one too: whoever takes it fails at once, and nobody waits for ever
        if answer is not None:
            raise answer


def _finished(running: "deque[tuple[Unit, Future[None]]]") -> Unit:
    unit, future = running.popleft()
    future.result()
    return unit


def serve(folder: Path, requests: IO[bytes], answers: IO[bytes]) -> None:
    """What a worker does until its requests end."""
    from nano_llama.core.data.prepare import load_encoder

    encode, tokenizer = load_encoder(folder)
    while True:
        try:
            unit = receive(requests)
        except EOFError:
            return
        answer = None
        try:
            if not folder.is_dir():
                return  # our parent was killed and its successor has finished the work without us
            write_unit(folder, unit, encode, tokenizer.vocab_size, tokenizer.eos_id)
        except NanoLlamaError as error:
            answer = error
        send(answers, answer)


def send(pipe: IO[bytes], message: Any) -> None:
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """The next message. Only ever read from a process of our own making."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)


if __name__ == "__main__":
    os.putenv("TOKENIZERS_PARALLELISM", "false")  # to the library: one thread, for the processes are the parallelism
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes to stderr: stdout carries answers only
    try:
        serve(Path(sys.argv[1]), sys.stdin.buffer, answers)
    except (KeyboardInterrupt, BrokenPipeError):  # the parent tells the user
        os._exit(130)
