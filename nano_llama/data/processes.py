"""A conversation with a few worker processes of one module, started as `python -m MODULE`: a message in, an answer out.

Not here: `multiprocessing`. Its pool would import the user's script again (which then needs a guard), and its workers
outlive a parent that was killed; ours end when their pipe closes. Nor what is said (worker.py, prefetch.py).
Tests: tests/data/test_processes.py.

Messages are pickles, behind their length. An answer that is an error of ours is raised where the question was asked.
"""

import os
import pickle
import queue
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import IO, Any

from nano_llama.core.errors import EnvironmentFault, NanoLlamaError

_LENGTH = struct.Struct("<Q")


class Processes:
    """`count` processes of `module`, to whom anybody may `submit` messages. Use as a context manager.

    greeting: the first message to each, which it does not answer. hint: what to do where one has ended.
    """

    def __init__(self, module: str, *arguments: str, count: int, hint: str, greeting: Any = None):
        command = [sys.executable, "-m", module, *arguments]
        pipe = subprocess.PIPE
        # A session of their own: Ctrl-C in the terminal is ours to answer.
        self.all = [subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True) for _ in range(count)]
        self.hint = hint
        self.idle: queue.SimpleQueue[subprocess.Popen] = queue.SimpleQueue()
        self.threads = ThreadPoolExecutor(count, thread_name_prefix="worker")  # one waits on each process
        for process in self.all:
            assert process.stdin is not None
            if greeting is not None:
                with suppress(OSError):  # one that has ended already is noticed when it is asked
                    send(process.stdin, greeting)
            self.idle.put(process)

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *failure: object) -> None:
        for process in self.all:
            process.kill()  # idle by now, or no longer wanted
        self.threads.shutdown(wait=True, cancel_futures=True)
        for process in self.all:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with suppress(OSError):  # closing flushes, and nobody listens any more
                    pipe.close()

    def submit(self, message: Any, work: str) -> "Future[Any]":
        """Ask the next idle process; `work` is what it does, for the user: "was making batches".

        The future raises EnvironmentFault where the process has ended, or the error that came as its answer.
        """
        return self.threads.submit(self._ask, message, work)

    def _ask(self, message: Any, work: str) -> Any:
        process = self.idle.get()
        try:
            assert process.stdin is not None and process.stdout is not None
            send(process.stdin, message)
            answer = receive(process.stdout)
        except (OSError, EOFError) as error:
            code = process.wait()
            raise EnvironmentFault(f"A worker that {work} ended with code {code}.", hint=self.hint) from error
        finally:
            self.idle.put(process)  # a dead one too: whoever takes it fails at once, and nobody waits for ever
        if isinstance(answer, NanoLlamaError):
            raise answer
        return answer


def send(pipe: IO[bytes], message: Any) -> None:
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """The next message. Only ever read from a process of our own making. Raises EOFError where there is none."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)


def run_worker(begin: Callable[[IO[bytes]], Callable[[Any], Any]]) -> None:
    """The main program of a worker. `begin` reads a greeting, where there is one, and gives what answers a message."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes to stderr: stdout carries answers only
    try:
        answer = begin(requests)
        while True:
            send(answers, _answered(answer, receive(requests)))
    except EOFError:
        return
    except (KeyboardInterrupt, BrokenPipeError):  # the parent tells the user
        os._exit(130)


def _answered(answer: Callable[[Any], Any], message: Any) -> Any:
    """The answer, or the error that is one."""
    try:
        return answer(message)
    except NanoLlamaError as error:
        return error
    except MemoryError:
        return EnvironmentFault("A worker ran out of memory.", hint="Use fewer workers, or close other programs.")
