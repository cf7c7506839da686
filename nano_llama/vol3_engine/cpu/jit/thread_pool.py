"""A team of threads that run one compiled function together, and meet at barriers inside it.

    team = ThreadPool(threads)
    team.assign(serve, arguments)      serve(thread, control, seen, patience, *arguments(thread)), compiled, nogil
    team.run()                         every thread runs it once; the caller is thread 0

A worker stays in compiled code: it spins until the next call is published, runs it, and spins again, so a call costs it
no Python at all. Where none comes for a while (`patience`) it goes to sleep. It says so before it looks for a call a
last time, and the leader publishes a call before it looks who sleeps: one of the two sees the other, so no call is
slept through (Dekker's argument; both sides use sequentially consistent atomics).
Not here: what is computed (kernels/step.py), how many threads (core/machine.py).
Tests: tests/vol3/cpu/jit/test_thread_pool.py.
"""

import os
import platform
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from nano_llama.vol3_engine.cpu.jit.jit import kernel
from nano_llama.vol3_engine.cpu.kernels.pack import aligned
from nano_llama.vol3_engine.cpu.simd.intrinsics import call, pointer

# The control words, each on a cache line of its own.
CALL, ARRIVED, ROUND, CANCELLED, STOP, NEXT_TASK, ASLEEP = (8 * i for i in range(7))  # ASLEEP: one for each thread
SPINS_BEFORE_SLEEP = 30_000  # spins (about 1.5 ms) for which a worker waits before it goes to sleep
SPINS_BEFORE_YIELD = 4_000  # spins after which a waiting thread lets others have its core, were they to share it

_I32, _I64, _VOID = ir.IntType(32), ir.IntType(64), ir.VoidType()
_MACHINE = platform.machine().lower()


# -- words ------------------------------------------------------------------------------------------------------------


@intrinsic
def fetch_add(typing_context, control, index, amount):
    """words[index] += amount, at once for all threads -> the new value."""

    def generate(context, builder, sig, args):
        place = pointer(context, builder, sig.args[0], args[0], [args[1]], _I64)
        return builder.atomic_rmw("add", place, args[2], "seq_cst")

    return types.int64(control, types.intp, types.int64), generate


@intrinsic
def atomic_load(typing_context, control, index):
    """words[index] as the other threads left it."""

    def generate(context, builder, sig, args):
        place = pointer(context, builder, sig.args[0], args[0], [args[1]], _I64)
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(control, types.intp), generate


@intrinsic
def atomic_store(typing_context, control, index, value):
    """words[index] = value, and all that was written before, for the other threads to see."""

    def generate(context, builder, sig, args):
        place = pointer(context, builder, sig.args[0], args[0], [args[1]], _I64)
        builder.store_atomic(args[2], place, "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(control, types.intp, types.int64), generate


@intrinsic
def cpu_relax(typing_context):
    """A short pause inside a waiting loop, which leaves the memory and the other half of the core alone."""

    def generate(context, builder, sig, args):
        if _MACHINE in ("x86_64", "amd64"):
            call(builder, "llvm.x86.sse2.pause", _VOID, [])
        elif _MACHINE in ("aarch64", "arm64"):
            call(builder, "llvm.aarch64.hint", _VOID, [ir.Constant(_I32, 1)])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def yield_cpu(typing_context):
    """Let another thread have this core, if one waits for it."""

    def generate(context, builder, sig, args):
        if os.name == "posix":
            call(builder, "sched_yield", _I32, [])
        return context.get_dummy_value()

    return types.void(), generate


# -- waiting ----------------------------------------------------------------------------------------------------------


@kernel
def spin_wait(spins):
    """One turn of a waiting loop -> turns so far."""
    if spins % SPINS_BEFORE_YIELD == SPINS_BEFORE_YIELD - 1:
        yield_cpu()
    else:
        cpu_relax()
    return spins + 1


@kernel
def barrier(control, threads):
    """A barrier: nobody goes on before all have come. What was written before it is seen by all after it."""
    if threads == 1:
        return
    this_round = atomic_load(control, ROUND)
    if fetch_add(control, ARRIVED, 1) == threads - 1:
        atomic_store(control, ARRIVED, 0)
        atomic_store(control, ROUND, this_round + 1)
        return
    spins = 0
    while atomic_load(control, ROUND) == this_round and atomic_load(control, CANCELLED) == 0:
        spins = spin_wait(spins)


@kernel
def wait_for_call(thread, control, seen, patience):
    """Wait until there is another call than the `seen` ones -> True; or False when it is time to leave or to sleep."""
    spins = 0
    while atomic_load(control, CALL) == seen:
        if atomic_load(control, STOP) != 0:
            return False
        if spins >= patience:
            if thread > 0:
                atomic_store(control, ASLEEP + 8 * thread, 1)
            return atomic_load(control, CALL) != seen and atomic_load(control, STOP) == 0
        spins = spin_wait(spins)
    return True


@njit(nogil=True, _nrt=False, error_model="numpy")
def publish(control, threads):
    """The leader's side: there is one more call -> how many workers sleep and must be woken."""
    fetch_add(control, CALL, 1)
    asleep = 0
    for thread in range(1, threads):
        asleep += atomic_load(control, ASLEEP + 8 * thread)
    return asleep


@kernel
def partition(thread, threads, count):
    """The part first ... last-1 of 0 ... count-1 that is this thread's own."""
    return count * thread // threads, count * (thread + 1) // threads


# -- the team ---------------------------------------------------------------------------------------------------------


class ThreadPool:
    """`threads` threads with the caller's own among them. One thread at a time may call `run`."""

    def __init__(self, threads: int):
        assert threads >= 1, "the caller is a thread itself"
        self.threads = threads
        self._serve: Callable[..., int] | None = None
        self._arguments: list[tuple[Any, ...]] = []
        self._stop: Callable[[], Any] = lambda: None
        self._pid = os.getpid()

    def assign(self, serve: Callable[..., int], arguments: Callable[[int], tuple[Any, ...]]) -> None:
        """What `run` runs from now on: serve(thread, control, seen, patience, *arguments(thread)) -> calls seen."""
        self._serve, self._arguments = serve, [arguments(thread) for thread in range(self.threads)]
        self._start()

    def run(self) -> None:
        """One call by all threads; returns when the caller's part is done, which ends with a barrier."""
        assert self._serve is not None, "assign comes first"
        if os.getpid() != self._pid:  # a fork has no workers: the child hires its own
            self._start()
        try:
            if publish(self.control, self.threads):
                for wake in self._wakes:
                    wake.set()
            self._calls += 1
            self._serve(0, self.control, self._calls - 1, 0, *self._arguments[0])
        except BaseException:  # Ctrl-C between the call's publication and the leader's part: workers wait in vain
            self.control[CANCELLED] = 1
            self._start()
            raise

    def close(self) -> None:
        """Send the workers home and wait for them. The team can be assigned anew."""
        self._stop()
        self._stop = lambda: None
        self._serve, self._arguments = None, []

    def _start(self) -> None:
        """New workers and new words to talk with them; the old ones are sent home."""
        if os.getpid() == self._pid:
            self._stop()
        self._pid = os.getpid()
        self.control = aligned(ASLEEP + 8 * self.threads, np.int64)
        self._calls = 0
        self._wakes = [threading.Event() for _ in range(self.threads - 1)]
        assert self._serve is not None
        self._serve(0, self.control, 0, 0, *self._arguments[0])  # no call yet: it is only compiled
        publish(np.zeros_like(self.control), self.threads)
        workers = [
            threading.Thread(
                target=_worker_main,
                args=(thread, self.control, self._wakes[thread - 1], self._serve, self._arguments[thread]),
                name=f"nano-llama-{thread}",
                daemon=True,
            )
            for thread in range(1, self.threads)
        ]
        for worker in workers:
            worker.start()
        self._stop = weakref.finalize(self, _stop_workers, self.control, self._wakes, workers, os.getpid())


def _worker_main(
    thread: int, control: np.ndarray, wake: threading.Event, serve: Callable[..., int], arguments: tuple[Any, ...]
) -> None:
    """A worker's life. It knows nothing of the team, which may so be forgotten and collected."""
    seen = 0
    while not control[STOP]:
        wake.clear()
        seen = serve(thread, control, seen, SPINS_BEFORE_SLEEP, *arguments)
        if control[CALL] == seen and not control[STOP]:
            wake.wait()
        control[ASLEEP + 8 * thread] = 0


def _stop_workers(control: np.ndarray, wakes: list[threading.Event], workers: list[threading.Thread], pid: int) -> None:
    if os.getpid() != pid:
        return
    control[STOP] = 1
    for wake in wakes:
        wake.set()
    for worker in workers:
        worker.join()
