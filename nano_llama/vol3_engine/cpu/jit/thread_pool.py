"""A pool of threads that run one compiled function together, with barriers inside it.

    pool = ThreadPool(threads)
    pool.assign(worker_loop, arguments)    a compiled function: (thread, control, seen, patience, *arguments(thread))
    pool.run()                             every thread runs it once; the caller is thread 0

A worker stays in compiled code: it spins until the next call is published, runs it, and spins again, so a call costs it
no Python at all. If none comes for a while it sleeps. A worker sets its ASLEEP flag before it checks for a call one
last time, and the leader publishes a call before it reads the flags: one of the two sees the other, so no call is
missed (Dekker's argument; both sides use sequentially consistent atomics).
Not here: what is computed (kernels/step.py), how many threads (core/machine.py).
Tests: tests/vol3/cpu/jit/test_thread_pool.py.
"""

import os
import platform
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from nano_llama.vol3_engine.cpu.aligned import aligned
from nano_llama.vol3_engine.cpu.jit.jit import kernel
from nano_llama.vol3_engine.cpu.simd.intrinsics import call, pointer

# Indices into the control array, each on a cache line of its own. SLEEPERS, PATIENCE: at barriers. ASLEEP: per thread.
CALL, ARRIVED, ROUND, CANCELLED, STOP, NEXT_TASK, SLEEPERS, PATIENCE, ASLEEP = (8 * i for i in range(9))
SPINS_BEFORE_SLEEP = 30_000  # of a worker that waits for a call: about 1.5 ms
SPINS_BEFORE_YIELD = 4_000  # of a thread that may share its core with the one it waits for
MIN_PATIENCE, MAX_PATIENCE = 100, 4_000  # spins at a barrier before a thread sleeps: about 5 to 200 microseconds
ROUNDS_PER_TRIAL = 251  # of MAX_PATIENCE: a prime, so that trials meet all barriers of a step
SLEEP_NANOSECONDS = 5_000_000  # at most, at a barrier: a cancelled call wakes nobody
NAP_MICROSECONDS = 50  # where the system offers no futex

_I32, _I64, _VOID = ir.IntType(32), ir.IntType(64), ir.VoidType()
_MACHINE = platform.machine().lower()
# Linux's system call by which a thread sleeps until a word in memory changes; WAIT and WAKE within one process.
_FUTEX = {"x86_64": 202, "aarch64": 98}.get(_MACHINE) if sys.platform == "linux" else None
_FUTEX_WAIT, _FUTEX_WAKE = 128, 129


# -- atomics ----------------------------------------------------------------------------------------------------------


@intrinsic
def fetch_add(typing_context, control, index, amount):
    """control[index] += amount, atomically -> the value before."""

    def generate(context, builder, sig, args):
        place = pointer(context, builder, sig.args[0], args[0], [args[1]], _I64)
        return builder.atomic_rmw("add", place, args[2], "seq_cst")

    return types.int64(control, types.intp, types.int64), generate


@intrinsic
def atomic_load(typing_context, control, index):
    """control[index], sequentially consistent."""

    def generate(context, builder, sig, args):
        place = pointer(context, builder, sig.args[0], args[0], [args[1]], _I64)
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(control, types.intp), generate


@intrinsic
def atomic_store(typing_context, control, index, value):
    """control[index] = value; a thread that reads it sees all that was written before."""

    def generate(context, builder, sig, args):
        place = pointer(context, builder, sig.args[0], args[0], [args[1]], _I64)
        builder.store_atomic(args[2], place, "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(control, types.intp, types.int64), generate


@intrinsic
def cpu_relax(typing_context):
    """The pause hint for spin loops: saves power and leaves the core to its other hyperthread."""

    def generate(context, builder, sig, args):
        if _MACHINE in ("x86_64", "amd64"):
            call(builder, "llvm.x86.sse2.pause", _VOID, [])
        elif _MACHINE in ("aarch64", "arm64"):
            call(builder, "llvm.aarch64.hint", _VOID, [ir.Constant(_I32, 1)])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def yield_cpu(typing_context):
    """Let another thread run on this core, if one is ready."""

    def generate(context, builder, sig, args):
        if os.name == "posix":
            call(builder, "sched_yield", _I32, [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def sleep_while(typing_context, control, index, value):
    """Sleep if control[index] == value, until `wake_all`, at most SLEEP_NANOSECONDS. Elsewhere than on Linux: a nap."""

    def generate(context, builder, sig, args):
        place = pointer(context, builder, sig.args[0], args[0], [args[1]], _I32)
        if _FUTEX is not None:
            span = cgutils.alloca_once(builder, ir.LiteralStructType([_I64, _I64]))  # seconds, nanoseconds
            builder.store(ir.Constant(span.type.pointee, [0, SLEEP_NANOSECONDS]), span)
            low = builder.trunc(args[2], _I32)  # it compares 32 bits: the low ones, on these machines the first
            _futex(builder, place, _FUTEX_WAIT, low, span)
        elif os.name == "posix":
            call(builder, "usleep", _I32, [ir.Constant(_I32, NAP_MICROSECONDS)])
        return context.get_dummy_value()

    return types.void(control, types.intp, types.int64), generate


@intrinsic
def wake_all(typing_context, control, index):
    """Wake the threads that sleep at control[index]."""

    def generate(context, builder, sig, args):
        if _FUTEX is not None:
            place = pointer(context, builder, sig.args[0], args[0], [args[1]], _I32)
            _futex(builder, place, _FUTEX_WAKE, ir.Constant(_I32, 2**31 - 1), ir.Constant(_I64.as_pointer(), None))
        return context.get_dummy_value()

    return types.void(control, types.intp), generate


def _futex(builder, place, operation, value, timeout):
    """futex(place, operation, value, timeout), by its number: the C library has no function for it."""
    kind = ir.FunctionType(_I64, [_I64], var_arg=True)
    syscall = cgutils.get_or_insert_function(builder.module, kind, "syscall")
    word = [builder.ptrtoint(place, _I64), ir.Constant(_I64, operation), builder.zext(value, _I64)]
    builder.call(syscall, [ir.Constant(_I64, _FUTEX), *word, builder.ptrtoint(timeout, _I64)])


# -- waiting ----------------------------------------------------------------------------------------------------------


@kernel
def spin_wait(spins):
    """One iteration of a spin loop -> iterations so far."""
    if spins % SPINS_BEFORE_YIELD == SPINS_BEFORE_YIELD - 1:
        yield_cpu()
    else:
        cpu_relax()
    return spins + 1


@kernel
def barrier(control, threads):
    """No thread returns before all have arrived. What was written before it is visible to all after it.

    On an idle machine the others come within microseconds, and spinning is the fastest way to wait. Beside busy
    programs they may not be running: then each spin only keeps a core from them. So threads spin for as long as that
    has paid lately, and then sleep; now and then they try whether a long spin pays again. Who sleeps says so before
    it looks at ROUND one last time, and who comes last changes ROUND before it looks for sleepers: no wake-up is
    missed.
    """
    if threads == 1:
        return
    this_round = atomic_load(control, ROUND)
    if fetch_add(control, ARRIVED, 1) == threads - 1:
        atomic_store(control, ARRIVED, 0)
        atomic_store(control, ROUND, this_round + 1)
        if atomic_load(control, SLEEPERS) != 0:
            wake_all(control, ROUND)
        return
    trial = this_round % ROUNDS_PER_TRIAL == 0
    patience = MAX_PATIENCE if trial else max(atomic_load(control, PATIENCE), MIN_PATIENCE)
    spins, slept = 0, False
    while atomic_load(control, ROUND) == this_round and atomic_load(control, CANCELLED) == 0:
        if spins < patience:
            spins = spin_wait(spins)
        else:
            slept = True
            fetch_add(control, SLEEPERS, 1)
            sleep_while(control, ROUND, this_round)
            fetch_add(control, SLEEPERS, -1)
    atomic_store(control, PATIENCE, patience // 2 if slept else min(2 * patience, MAX_PATIENCE))


@kernel
def wait_for_call(thread, control, seen, patience):
    """Wait for a call after the `seen` ones -> True; or False when it is time to stop or to sleep."""
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
    """The leader's side: one more call -> how many workers are asleep and must be woken."""
    fetch_add(control, CALL, 1)
    asleep = 0
    for thread in range(1, threads):
        asleep += atomic_load(control, ASLEEP + 8 * thread)
    return asleep


@kernel
def partition(thread, threads, count):
    """This thread's part first ... last-1 of 0 ... count-1."""
    return count * thread // threads, count * (thread + 1) // threads


# -- the pool ---------------------------------------------------------------------------------------------------------


class ThreadPool:
    """`threads` threads, of which the caller is one. Only one thread at a time may call `run`."""

    def __init__(self, threads: int):
        assert threads >= 1, "the caller is one of them"
        self.threads = threads
        self._worker_loop: Callable[..., int] | None = None
        self._arguments: list[tuple[Any, ...]] = []
        self._stop: Callable[[], Any] = lambda: None
        self._pid = os.getpid()

    def assign(self, worker_loop: Callable[..., int], arguments: Callable[[int], tuple[Any, ...]]) -> None:
        """What `run` runs from now on. A worker loop returns the number of calls seen."""
        self._worker_loop, self._arguments = worker_loop, [arguments(thread) for thread in range(self.threads)]
        self._start()

    def run(self) -> None:
        """One call on all threads; returns when thread 0 is done, and so all are: each call ends with a barrier."""
        assert self._worker_loop is not None, "assign comes first"
        if os.getpid() != self._pid:  # a forked child has no workers: it starts its own
            self._start()
        try:
            if publish(self.control, self.threads):
                for wake in self._wakes:
                    wake.set()
            self._calls += 1
            self._worker_loop(0, self.control, self._calls - 1, 0, *self._arguments[0])
        except BaseException:  # Ctrl-C after publishing and before thread 0 runs: the workers would wait forever
            self.control[CANCELLED] = 1
            self._start()
            raise

    def close(self) -> None:
        """Stop the workers and wait for them. The pool can be assigned again."""
        self._stop()
        self._stop = lambda: None
        self._worker_loop, self._arguments = None, []

    def _start(self) -> None:
        """Start new workers with a new control array; the old ones are stopped."""
        if os.getpid() == self._pid:
            self._stop()
        self._pid = os.getpid()
        self.control = aligned(ASLEEP + 8 * self.threads, np.int64)
        self._calls = 0
        self._wakes = [threading.Event() for _ in range(self.threads - 1)]
        assert self._worker_loop is not None
        self._worker_loop(0, self.control, 0, 0, *self._arguments[0])  # no call yet: this only compiles
        publish(np.zeros_like(self.control), self.threads)
        workers = [
            threading.Thread(
                target=_worker_main,
                args=(thread, self.control, self._wakes[thread - 1], self._worker_loop, self._arguments[thread]),
                name=f"nano-llama-{thread}",
                daemon=True,
            )
            for thread in range(1, self.threads)
        ]
        for worker in workers:
            worker.start()
        self._stop = weakref.finalize(self, _stop_workers, self.control, self._wakes, workers, os.getpid())


def _worker_main(
    thread: int, control: np.ndarray, wake: threading.Event, worker_loop: Callable[..., int], arguments: tuple[Any, ...]
) -> None:
    """A worker's main loop. It holds no reference to the pool, so that the pool can be garbage-collected."""
    seen = 0
    while not control[STOP]:
        wake.clear()
        seen = worker_loop(thread, control, seen, SPINS_BEFORE_SLEEP, *arguments)
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
