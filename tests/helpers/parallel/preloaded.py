"""A `python` that has imported torch already, for tests that start and restart many processes.

    with preloaded(folder) as python:                     # the path of a program
        subprocess.run([python, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "nano_llama", ...])

Importing takes four seconds of CPU in each process, more than all that the tests are about. Here a server imports
once, and what is started is a fork of it: torchrun is one, and its processes are forks of torchrun. Everything else is
as without it: torchrun's own code starts, watches and ends them by their numbers. The program that a test or a recipe
has started is a small one that stands for the fork: it passes signals on, and ends as the fork does.
tests/parallel/test_started.py starts the recipe for two hosts with the real interpreter.
"""

import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
PRELOADED = (
    "torch.distributed.launcher.api", "torch._dynamo", "nano_llama.cli.train", "nano_llama.vol2_torch.parallel.trainer",
)  # fmt: skip


@contextmanager
def preloaded(folder: Path) -> Iterator[Path]:
    """The program, which lies in `folder`, until the block ends."""
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {__file__} ask {folder} "$@"\n')
    program.chmod(0o755)
    server = subprocess.Popen([sys.executable, "-u", __file__, "serve", str(folder)], stdin=subprocess.PIPE)
    try:
        while not (folder / "socket").exists():
            assert server.poll() is None, "the server has ended"
            time.sleep(0.01)
        yield program
    finally:
        server.stdin.close()  # type: ignore[union-attr]
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def pid_of_fork(folder: Path, program: int) -> int:
    """The process for which a started program stands; that one itself where it is another program."""
    known = folder / str(program)
    return int(known.read_text()) if known.exists() else program


# -- the program ------------------------------------------------------------------------------------------------------


def ask(folder: Path, words: list[str]) -> None:
    """Have the server run `python words...` with this process's environment, folder and streams; end as it ends."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(str(folder / "socket"))
        request = {"words": words, "environment": dict(os.environ), "cwd": str(Path.cwd()), "program": os.getpid()}
        socket.send_fds(server, [b"."], [0, 1, 2])
        server.sendall(json.dumps(request).encode())
        server.shutdown(socket.SHUT_WR)
        answers = server.makefile()
        fork = int(answers.readline())
        for number in SIGNALS:
            signal.signal(number, lambda number, frame: os.kill(fork, number))
        code = int(answers.readline() or 1)
    if code < 0:
        if -code in SIGNALS:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


# -- the server -------------------------------------------------------------------------------------------------------


def serve(folder: Path) -> None:
    """Import, then fork whenever a program asks, until stdin is closed."""
    from importlib import import_module

    os.environ.update(TORCH_CPP_LOG_LEVEL="ERROR", OMP_NUM_THREADS="1")  # read by the import
    for name in PRELOADED:
        import_module(name)
    handler = import_module("torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler")
    handler.Popen = Forked  # type: ignore[attr-defined]  # of torchrun's processes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "starting"))
        listener.listen(16)
        (folder / "starting").rename(folder / "socket")
        while listener in select([listener, sys.stdin], [], [])[0]:
            with listener.accept()[0] as asker:
                multiprocessing.get_context("fork").Process(target=keep, args=(folder, asker)).start()


def keep(folder: Path, asker: socket.socket) -> None:
    """Run what is asked for in a fork, and tell its number and how it ends."""
    streams = socket.recv_fds(asker, 1, 3)[1]
    with asker.makefile() as sent:
        request = json.load(sent)
    fork = Forked([sys.executable, *request["words"]], request["environment"], cwd=request["cwd"], streams=streams)
    (folder / f"{request['program']}.new").write_text(str(fork.pid))
    (folder / f"{request['program']}.new").rename(folder / str(request["program"]))
    with suppress(OSError):  # nobody asks any more
        asker.sendall(f"{fork.pid}\n".encode())
        asker.sendall(f"{fork.wait()}\n".encode())


class Forked:
    """What torchrun uses of subprocess.Popen, for a fork of this process that runs `python words...`."""

    def __init__(
        self, args: Any, env: dict[str, str], cwd: str = ".", streams: Any = (), stdout: Any = None, stderr: Any = None,
        start_new_session: bool = True,
    ):  # fmt: skip
        assert args[0] == sys.executable and stdout is stderr is None
        self.process = multiprocessing.get_context("fork").Process(
            target=interpret, args=(list(args[1:]), env, cwd, streams)
        )
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid
        os.setpgid(self.pid, self.pid)  # torchrun sends signals to its group

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float = float("inf")) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("", timeout)
            time.sleep(0.01)
        return code


def interpret(words: list[str], environment: dict[str, str], cwd: str, streams: Any) -> None:
    """Be `python words...`, with nothing of the process that was forked but its modules."""
    for one in SIGNALS:
        signal.signal(one, signal.default_int_handler if one == signal.SIGINT else signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 4096)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    words = [word for i, word in enumerate(words) if (i, word) != (0, "-u")]  # the server is unbuffered
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    what, where, *more = sys.argv[1:]
    if what == "ask":
        ask(Path(where), more)
    else:
        serve(Path(where))
