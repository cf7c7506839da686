"""The team: every thread runs every call once, between barriers, through sleep, forks and Ctrl-C."""

import os
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
def pool():
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
def test_all_threads_run_every_call_and_meet(pool, threads):
    together, counts, wrong = pool(threads)
    for _ in range(50):
        together.run()
    assert counts.tolist() == [250] * threads and not wrong.any()


def test_no_call_is_slept_through(pool):
    """Calls that come just when a worker goes to sleep, and long after."""
    together, counts, wrong = pool(2)
    for call in range(60):
        together.run()
        time.sleep(0.0005 * (call % 8))
    deadline = time.monotonic() + 5
    while not together.control[ASLEEP + 8] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert together.control[ASLEEP + 8], "a worker without work sleeps"
    together.run()
    assert counts.tolist() == [305, 305] and not wrong.any()


def test_two_teams_do_not_disturb_each_other(pool):
    (one, counts, _), (other, others, _) = pool(2), pool(2)
    for _ in range(20):
        one.run()
        other.run()
    assert counts.tolist() == others.tolist() == [100, 100]


def test_ctrl_c_before_the_leaders_part_leaves_a_team_that_works(pool):
    together, counts, _ = pool(2)
    together.run()
    serve, old = together._serve, together.control

    def interrupted(*arguments):
        if arguments[0] == 0 and arguments[2] != arguments[1][CALL]:
            raise KeyboardInterrupt
        return serve(*arguments)

    together._serve = interrupted
    with pytest.raises(KeyboardInterrupt):
        together.run()
    assert old[CANCELLED] == 1
    together._serve = serve
    counts[:] = 0
    together.run()
    assert counts.tolist() == [5, 5]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_hires_its_own_workers(pool):
    together, counts, _ = pool(2)
    together.run()
    child = os.fork()
    if child == 0:
        counts[:] = 0
        together.run()
        os._exit(0 if counts.tolist() == [5, 5] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_shares_cover_all_once():
    for count in (0, 1, 7, 36):
        parts = [partition(thread, 3, count) for thread in range(3)]
        assert [i for first, last in parts for i in range(first, last)] == list(range(count))
