"""The thread pool: every thread runs every call once, between barriers, through sleep, forks and Ctrl-C."""

import os
import sys
import time

import numpy as np
import pytest
from numba import njit

from nano_llama.vol3_engine.cpu.jit.thread_pool import (
    ASLEEP,
    CALL,
    CANCELLED,
    ThreadPool,
    barrier,
    partition,
    wait_for_call,
)


@njit(nogil=True)
def count_in_rounds(thread, control, seen, patience, threads, rounds, counts, wrong):
    """Each round, every thread adds 1 to its count; after the barrier all counts must be equal."""
    while wait_for_call(thread, control, seen, patience):
        seen += 1
        for _ in range(rounds):
            counts[thread, 0] += 1
            barrier(control, threads)
            for other in range(threads):
                if counts[other, 0] != counts[thread, 0]:
                    wrong[thread, 0] += 1
            barrier(control, threads)
    return seen


@pytest.fixture
def make_pool():
    pools = []

    def make(threads, rounds=5):
        pool, counts, wrong = ThreadPool(threads), *(np.zeros((threads, 8), np.int64) for _ in range(2))
        pool.assign(count_in_rounds, lambda thread: (threads, rounds, counts, wrong))
        pools.append(pool)
        return pool, counts[:, 0], wrong[:, 0]

    yield make
    for pool in pools:
        pool.close()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_all_threads_run_every_call_between_barriers(make_pool, threads):
    pool, counts, wrong = make_pool(threads)
    for _ in range(50):
        pool.run()
    assert counts.tolist() == [250] * threads and not wrong.any()


def test_no_call_is_missed_by_a_sleeping_worker(make_pool):
    """Calls that come just as a worker goes to sleep, and long after."""
    pool, counts, wrong = make_pool(2)
    for call in range(60):
        pool.run()
        time.sleep(0.0005 * (call % 8))
    deadline = time.monotonic() + 5
    while not pool.control[ASLEEP + 8] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert pool.control[ASLEEP + 8], "an idle worker sleeps"
    pool.run()
    assert counts.tolist() == [305, 305] and not wrong.any()


@njit(nogil=True)
def late_at_barriers(thread, control, seen, patience, threads, rounds, work, sums):
    """Each round, thread 1 computes for some milliseconds while the others wait."""
    while wait_for_call(thread, control, seen, patience):
        seen += 1
        for _ in range(rounds):
            if thread == 1:
                for k in range(work):
                    sums[0] += 1.0 / (1.0 + k * sums[0])
            barrier(control, threads)
    return seen


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere waiting threads take naps")
def test_who_waits_long_at_a_barrier_sleeps():
    """A waiting thread that spins keeps a core from the one it waits for, where other programs are busy."""
    pool, sums = ThreadPool(2), np.zeros(1)
    pool.assign(late_at_barriers, lambda thread: (2, 20, 1_000_000, sums))
    begin, begin_own = time.process_time(), time.thread_time()
    pool.run()
    own, all_threads = time.thread_time() - begin_own, time.process_time() - begin
    pool.close()
    assert sums[0] > 0.0
    assert own < 0.03 * all_threads


def test_two_pools_are_independent(make_pool):
    (one, counts, _), (other, others, _) = make_pool(2), make_pool(2)
    for _ in range(20):
        one.run()
        other.run()
    assert counts.tolist() == others.tolist() == [100, 100]


def test_the_poolworks_after_ctrl_c(make_pool):
    pool, counts, _ = make_pool(2)
    pool.run()
    worker_loop, old = pool._worker_loop, pool.control

    def interrupted(*arguments):
        if arguments[0] == 0 and arguments[2] != arguments[1][CALL]:
            raise KeyboardInterrupt
        return worker_loop(*arguments)

    pool._worker_loop = interrupted
    with pytest.raises(KeyboardInterrupt):
        pool.run()
    assert old[CANCELLED] == 1
    pool._worker_loop = worker_loop
    counts[:] = 0
    pool.run()
    assert counts.tolist() == [5, 5]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_starts_its_own_workers(make_pool):
    pool, counts, _ = make_pool(2)
    pool.run()
    child = os.fork()
    if child == 0:
        counts[:] = 0
        pool.run()
        os._exit(0 if counts.tolist() == [5, 5] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_partition_covers_everything_once():
    for count in (0, 1, 7, 36):
        parts = [partition(thread, 3, count) for thread in range(3)]
        assert [i for first, last in parts for i in range(first, last)] == list(range(count))
