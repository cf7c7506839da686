"""When the validation loss is due, and how fast a run is."""

import pytest

from nano_llama.training.pace import EvaluationPlan, Meter


def due_steps(steps, count, past=0):
    plan = EvaluationPlan(count, past / steps)
    return [step for step in range(past + 1, steps + 1) if plan.due(step / steps, over=step == steps)]


def test_evaluations_are_spread_evenly_and_end_with_the_run():
    assert due_steps(100, 10) == list(range(10, 101, 10))
    assert due_steps(7, 2) == [4, 7]
    assert due_steps(3, 10) == [1, 2, 3], "at most one a step"
    assert due_steps(100, 0) == []
    assert due_steps(1000, 1) == [1000]


def test_a_resumed_run_has_them_at_the_same_steps():
    for past in range(100):
        assert due_steps(100, 7, past) == [step for step in due_steps(100, 7) if step > past]


def test_a_meter_measures():
    meter = Meter()
    assert meter.rate == 0.0 and meter.seconds_per_step == 0.0
    meter.add(100, 2.0)
    meter.add(100, 3.0)
    assert meter.rate == pytest.approx(40.0) and meter.seconds_per_step == pytest.approx(2.5)
