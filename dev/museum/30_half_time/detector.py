"""The learning rate of a step does not depend on how many batches a step has."""

from types import SimpleNamespace

from nano_llama.training.budget import Budget
from nano_llama.training.loop import TrainingLoop
from nano_llama.training.schedule import learning_rate

STEPS = 20


def curve(accumulate, schedule):
    """What the loop asks of its parts, with stand-ins for all but the budget and the schedule."""
    settings = SimpleNamespace(
        schedule=schedule, lr=1.0, warmup=0.1, final_lr=0.1, decay=None, accumulate=accumulate, batch_size=3
    )
    clock = SimpleNamespace(midway=Budget(max_steps=STEPS).midway, by_the_clock=False)
    rates = []
    for step in range(STEPS):
        state = SimpleNamespace(step=step, data_position=step * accumulate)
        rates.append(TrainingLoop._learning_rate(SimpleNamespace(settings=settings, clock=clock, state=state)))
    return rates


def test_accumulation_does_not_change_the_schedule():
    for schedule in ("cosine", "linear", "wsd"):
        expected = [learning_rate(schedule, (step + 0.5) / STEPS, 1.0, 0.1, 0.1) for step in range(STEPS)]
        for accumulate in (1, 2, 4):
            found = curve(accumulate, schedule)
            wrong = next((step for step in range(STEPS) if abs(found[step] - expected[step]) > 1e-12), None)
            assert wrong is None, (
                f"{schedule}, {accumulate} batches a step: the rate of step {wrong} is {found[wrong]:.3f} of the peak, "
                f"not {expected[wrong]:.3f}"
            )
