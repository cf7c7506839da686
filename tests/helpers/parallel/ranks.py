"""Ranks that are started once and run one case after another.

Importing torch takes longer than most cases, so a fork server imports it once, and every rank is a fork of it. A case
is a function of a module that the ranks can import (tests/helpers/parallel/): it gets the `Rank` and its own
arguments, and what it returns is sent back, rank by rank. Where a case fails or hangs, all ranks are ended, and the
next case starts new ones. What a rank that died or hung was doing, its faulthandler has written down.
"""

import faulthandler
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from nano_llama.core.env import Launch
from nano_llama.vol2_torch.parallel.config import ParallelConfig
from nano_llama.vol2_torch.parallel.mesh import Groups, make_mesh, process_group

CPU = torch.device("cpu")
OPERATION = 60  # seconds that a rank waits for the others
CASE = 150  # seconds for a case
PRELOADED = ["torch", "torch.distributed.fsdp", "torch.distributed.tensor.parallel", "nano_llama.vol2_torch.trainer"]


class CaseFailed(AssertionError):
    """What a rank raised, or that it did not answer."""


@dataclass(frozen=True)
class Rank:
    """What a case knows of where it runs. meshes, groups: those made so far; the former share the latter."""

    rank: int
    world_size: int
    meshes: dict[str, Any] = field(default_factory=dict)
    groups: Groups = field(default_factory=dict)

    def mesh(self, text: str):
        """The mesh of "fsdp=2,tp=2"."""
        if text not in self.meshes:
            self.meshes[text] = make_mesh(ParallelConfig.parse(text), CPU, self.groups)
        return self.meshes[text]


def serve(pipe, rank: int, world_size: int, store: str, stacks: Path) -> None:
    """A rank's life: join the others, then answer each case that comes through the pipe. stacks: where its threads are
    when a signal ends it, for `Ranks.died`."""
    faulthandler.enable(stacks.open("w"))
    torch.set_num_threads(1)
    launch = Launch(rank=rank, world_size=world_size, local_rank=rank, local_world_size=world_size, address=store)
    with process_group(launch, CPU, timeout=OPERATION, store=dist.FileStore(store, world_size)):
        here = Rank(rank, world_size)
        while (request := received(pipe)) is not None:
            case, arguments = request
            try:
                torch.manual_seed(0)
                pipe.send(("ok", case(here, **arguments)))
            except BaseException:
                pipe.send(("failed", traceback.format_exc()))


def received(pipe) -> Any:
    try:
        return pipe.recv()
    except (EOFError, ConnectionResetError):  # the tests have ended
        return None


class Ranks:
    """`world_size` processes in one process group. `run` gives them a case."""

    def __init__(self, world_size: int):
        self.world_size = world_size
        self.processes: list[Any] = []
        self.pipes: list[Any] = []
        self.stack = ExitStack()
        self.folder = Path()

    def stacks(self, rank: int) -> Path:
        return self.folder / f"stacks-{rank}.txt"

    def start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="ranks")))
        for rank in range(self.world_size):
            ours, theirs = context.Pipe()
            arguments = (theirs, rank, self.world_size, str(self.folder / "store"), self.stacks(rank))
            process = context.Process(target=serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)

    def run(self, case: Callable[..., Any], **arguments: Any) -> list[Any]:
        """case(rank, **arguments) in every process -> what each returned, by rank. Raises CaseFailed."""
        if not self.processes:
            self.start()
        try:
            for rank, pipe in enumerate(self.pipes):
                try:
                    pipe.send((case, arguments))
                except BrokenPipeError:
                    raise self.died(f"before {case.__name__}", rank) from None
            return self.collect(case.__name__)
        except BaseException:
            self.stop()
            raise

    def collect(self, name: str) -> list[Any]:
        deadline, answers = time.monotonic() + CASE, {}
        while len(answers) < self.world_size:
            waiting = {pipe: rank for rank, pipe in enumerate(self.pipes) if rank not in answers}
            ready = multiprocessing.connection.wait(list(waiting), max(deadline - time.monotonic(), 0))
            if not ready:
                raise self.hung(name, sorted(waiting.values()))
            for pipe in ready:
                try:
                    state, answer = pipe.recv()
                except (EOFError, ConnectionResetError):
                    raise self.died(name, waiting[pipe]) from None
                if state == "failed":  # the others wait for it in vain
                    raise CaseFailed(f"{name}: rank {waiting[pipe]} of {self.world_size} raised\n{answer}")
                answers[waiting[pipe]] = answer
        return [answers[rank] for rank in range(self.world_size)]

    def died(self, name: str, rank: int) -> CaseFailed:
        """By which exit code or signal, and where its threads were."""
        self.processes[rank].join(20)  # its pipe may close before it ends
        code = self.processes[rank].exitcode
        how = f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name
        return CaseFailed(
            f"{name}: the process of rank {rank} of {self.world_size} ended by {how}\n{self.stacks(rank).read_text()}"
        )

    def hung(self, name: str, ranks: list[int]) -> CaseFailed:
        """Ranks that have not answered in time, and where their threads are."""
        for rank in ranks:
            os.kill(self.processes[rank].pid, signal.SIGABRT)  # on which they write it down
            self.processes[rank].join(20)
        stacks = "\n".join(f"Rank {rank}:\n{self.stacks(rank).read_text()}" for rank in ranks)
        return CaseFailed(f"{name}: ranks {ranks} of {self.world_size} did not answer within {CASE} s\n{stacks}")

    def stop(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.kill()
            process.join()
        self.processes, self.pipes = [], []
        self.stack.close()

    def end(self) -> None:
        """Let the ranks leave in peace, else end them."""
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(20)
        self.stop()
