"""The clock of a run: when the process began, how busy the machine is, when a checkpoint is due."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from nano_llama.training.clock import MAX_SLOWDOWN, RunClock, process_start, slowdown


def test_a_checkpoint_is_due_after_its_minutes_and_after_the_first_step_by_the_clock(settings, hand_clock):
    saver = SimpleNamespace(seconds=None, busy=False)
    for by_the_clock, due in ((False, False), (True, True)):
        wanted = settings.replace(checkpoint_minutes=1.0, **({"max_minutes": 9.0} if by_the_clock else {}))
        clock = RunClock(wanted, saver, clock=hand_clock)
        clock.start_training()
        clock.count_step(64, 0.1, 0.0)
        assert clock.checkpoint_due() == due, "the first one tells how long saving takes"
        clock.count_step(64, 0.1, 0.0)
        assert not clock.checkpoint_due()
        hand_clock.now += 60.0
        assert clock.checkpoint_due()
        clock.count_checkpoint()
        assert not clock.checkpoint_due()


def test_sessions_add_up(settings, hand_clock):
    start = hand_clock()
    hand_clock.now += 7.0
    clock = RunClock(
        settings, SimpleNamespace(seconds=None, busy=False), start=start, past_seconds=100.0, clock=hand_clock
    )
    assert clock.elapsed() == 107.0


def test_the_process_began_before_its_imports():
    code = "from nano_llama.training import clock as c; print(c.time.monotonic() - c.process_start())"
    begin = time.monotonic()
    age = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 0.03 <= age <= time.monotonic() - begin + 0.02 if sys.platform == "linux" else age >= 0
    assert process_start() <= time.monotonic()


def test_a_busy_machine_is_known_by_wall_over_cpu_time():
    used = sum(os.times()[:3])  # of the tests so far, their children's included
    assert slowdown(0.0) == 1.0
    assert slowdown(3.0 * used) == pytest.approx(3.0, rel=0.3)
    assert slowdown(1e9) == MAX_SLOWDOWN


def test_training_ends_earlier_for_what_comes_afterwards(settings, hand_clock):
    ends = []
    for seconds in (0.0, 40.0):
        clock = RunClock(
            settings.replace(max_minutes=2.0), SimpleNamespace(seconds=0.1, busy=False), clock=hand_clock
        )  # fmt: skip
        clock.reserve_afterwards(seconds)
        clock.start_training()
        clock.count_step(64, 1.0, 0.0)
        ends.append(clock.budget.deadline - clock.budget.reserve)
        assert clock.time_for_evaluation(over=True) <= 120.0 - seconds
    assert ends[0] - ends[1] == pytest.approx(40.0)
