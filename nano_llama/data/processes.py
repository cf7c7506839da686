"""A pool of worker processes of one module, started as `python -m MODULE`: a message in, an answer out.

`multiprocessing` is not used: its pool would import the user's script again (which then needs a guard), and its workers
outlive a parent that was killed; ours end when their pipe closes. The messages are those of worker.py and prefetch.py.
Tests: tests/data/test_processes.py.

Messages are pickles, behind their length. An answer that is an error of ours is raised in the parent.
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
    """`count` processes of `module`, that any thread may `submit` messages to. Use as a context manager.

    greeting: the first message to each, which it does not answer. hint: what the user can do if one has ended.
    """

    def __init__(self, module: str, *arguments: str, count: int, hint: str, greeting: Any = None):
        command = [sys.executable, "-m", module, *arguments]
        pipe = subprocess.PIPE
        # A session of their own: Ctrl-C in the terminal goes to the parent alone.
        self.all = [subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True) for _ in range(count)]
        self.hint = hint
        self.idle: queue.SimpleQueue[subprocess.Popen] = queue.SimpleQueue()
        self.threads = ThreadPoolExecutor(count, thread_name_prefix="worker")  # one waits on each process
        for process in self.all:
            assert process.stdin is not None
            if greeting is not None:
                with suppress(OSError):  # one that has already ended is noticed at its first request
                    send(process.stdin, greeting)
            self.idle.put(process)

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *failure: object) -> None:
        for process in self.all:
            process.kill()  # idle by now, or no longer needed
        self.threads.shutdown(wait=True, cancel_futures=True)
        for process in self.all:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with suppress(OSError):  # closing flushes, and there is no reader any more
                    pipe.close()

    def submit(self, message: Any, work: str) -> "Future[Any]":
        """Send a message to the next idle process; `work` is what it does, for error messages: "was making batches".

        The future raises EnvironmentFault if the process has ended, or the error that came as its answer.
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
            self.idle.put(process)  # a dead one too: its next user fails at once instead of waiting forever
        if isinstance(answer, NanoLlamaError):
            raise answer
        return answer


def send(pipe: IO[bytes], message: Any) -> None:
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """The next message. Read only from processes that we started. Raises EOFError at the end."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)


def run_worker(begin: Callable[[IO[bytes]], Callable[[Any], Any]]) -> None:
    """The main program of a worker. `begin` reads the greeting, if there is one, and returns the message handler."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes to stderr: stdout carries answers only
    try:
        handle = begin(requests)
        while True:
            send(answers, _answer(handle, receive(requests)))
    except EOFError:
        return
    except (KeyboardInterrupt, BrokenPipeError):  # the parent tells the user
        os._exit(130)


def _answer(handle: Callable[[Any], Any], message: Any) -> Any:
    """What `handle` returns; an error of ours is an answer too."""
    try:
        return handle(message)
    except NanoLlamaError as error:
        return error
    except MemoryError:
        return EnvironmentFault("A worker ran out of memory.", hint="Use fewer workers, or close other programs.")
