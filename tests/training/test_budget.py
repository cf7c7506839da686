"""Progress by steps and by the clock, on a clock that is set by hand."""

import pytest

from nano_llama.training.budget import Budget


def test_by_steps_it_is_a_plain_fraction():
    budget = Budget(max_steps=8)
    assert [budget.progress(step) for step in (0, 2, 8, 9)] == [0.0, 0.25, 1.0, 1.0]
    assert budget.midway(2) == pytest.approx(2.5 / 8)
    budget.keep(100.0)
    assert budget.progress(2) == 0.25, "the clock has no say"
    assert budget.seconds_left(2, 3.0) == 18.0


def test_by_the_clock_it_fits_what_is_left(hand_clock):
    start = hand_clock()
    hand_clock.now += 20.0  # imports, data
    budget = Budget(max_minutes=2.0, start=start, clock=hand_clock)
    budget.start_training()
    assert budget.progress(0) == 0.0
    hand_clock.now += 50.0
    assert budget.progress(5) == pytest.approx(0.5), "70 of 120 s are over, half of the 100 s that training had"
    budget.keep(30.0)
    assert budget.progress(5) == pytest.approx(50 / 70), "30 s less for training"
    hand_clock.now += 20.0
    assert budget.progress(6) == 1.0 and hand_clock.now <= start + 90.0


def test_it_ends_before_a_step_that_would_not_fit(hand_clock):
    budget = Budget(max_minutes=1.0, start=hand_clock(), clock=hand_clock)
    budget.start_training()
    budget.count_step(5.0)
    hand_clock.now += 60.0 - 1.5 * 5.0 - 0.1  # of a single step little is known
    assert budget.progress(1) < 1.0
    hand_clock.now += 0.2
    assert budget.progress(1) == 1.0
    for _ in range(30):
        budget.count_step(5.0)
    assert budget.progress(31) < 1.0
    hand_clock.now += 1.4
    assert budget.progress(31) == 1.0


def test_no_run_is_refused_by_a_guess(hand_clock):
    """A busy machine's measured peak was 250 times too low, and a run that fitted was refused."""
    budget = Budget(max_minutes=1.0, start=hand_clock(), clock=hand_clock)
    budget.guess_step(61.0)
    assert budget.progress(0) < 1.0
    budget.count_step(50.0)  # a step that was made
    assert budget.progress(1) == 1.0


def test_a_slow_first_step_says_little_of_the_next_ones(hand_clock):
    budget = Budget(max_minutes=2.0, start=hand_clock(), clock=hand_clock)
    budget.count_step(27.0)  # kernels were compiled
    assert budget.typical_step == budget.step_seconds == 27.0
    for _ in range(5):
        budget.count_step(0.1)
    assert budget.typical_step == budget.step_seconds == 0.1
    budget.count_step(3.0)  # a later one that is slow may come again
    assert budget.typical_step == 0.1 and budget.step_seconds == 3.0


def test_a_resumed_run_goes_on_where_it_was(hand_clock):
    budget = Budget(max_minutes=1.0, start=hand_clock(), past=0.6, clock=hand_clock)
    budget.start_training()
    assert budget.progress(100) == pytest.approx(0.6)
    hand_clock.now += 30.0
    assert budget.progress(100) == pytest.approx(0.8)
    assert Budget(max_minutes=1.0, start=hand_clock(), past=1.0, clock=hand_clock).progress(100) == 1.0


def test_a_reserve_of_all_that_is_left_ends_the_run(hand_clock):
    budget = Budget(max_minutes=1.0, start=hand_clock(), clock=hand_clock)
    budget.start_training()
    budget.keep(59.0)
    assert budget.progress(0) == 0.0
    budget.keep(60.0)
    assert budget.progress(0) == 1.0
