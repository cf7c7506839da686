"""The three learning-rate curves against torch's schedulers and their closed forms."""

import numpy as np
import pytest

from nano_llama.core.errors import UserError
from nano_llama.vol1_numpy.schedules import SCHEDULES, warmup_stable_decay

PEAK, FINAL, STEPS = 0.3, 0.1, 200


def torch_curve(name, warmup_steps):
    """lr at each step of torch's own schedulers, chained: the rise, then the rest."""
    torch = pytest.importorskip("torch")
    from torch.optim import lr_scheduler

    rest = STEPS - warmup_steps
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    parts = [lr_scheduler.LinearLR(optimizer, 1e-12, 1.0, warmup_steps)]
    if name == "cosine":
        parts.append(lr_scheduler.CosineAnnealingLR(optimizer, rest, PEAK * FINAL))
    else:
        parts.append(lr_scheduler.LinearLR(optimizer, 1.0, FINAL, rest))
    chain = lr_scheduler.SequentialLR(optimizer, parts, [warmup_steps])
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        chain.step()
    return rates


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_curves_equal_torchs_schedulers(name):
    ours = [SCHEDULES[name](step / STEPS, PEAK, 0.1, FINAL) for step in range(STEPS)]
    np.testing.assert_allclose(ours, torch_curve(name, STEPS // 10), rtol=1e-9, atol=1e-12)


def test_wsd_is_flat_between_its_two_lines():
    progress = np.array([0.0, 0.05, 0.1, 0.5, 0.75, 0.875, 1.0])
    rates = [warmup_stable_decay(p, PEAK, 0.1, FINAL, decay=0.25) for p in progress]
    np.testing.assert_allclose(rates, PEAK * np.array([0, 0.5, 1, 1, 1, 0.55, 0.1]), rtol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.3, 0.8])
def test_every_curve_rises_to_the_peak_and_ends_at_its_part(name, warmup):
    curve = [SCHEDULES[name](p, PEAK, warmup, FINAL) for p in np.linspace(0, 1, 1001)]
    assert max(curve) == pytest.approx(PEAK) and curve[-1] == pytest.approx(PEAK * FINAL)
    assert curve[0] == (PEAK if warmup == 0 else 0)
    top = int(1000 * warmup)
    assert np.all(np.diff(curve[: top + 1]) > 0) and np.all(np.diff(curve[top:]) <= 1e-15)
    assert SCHEDULES[name](1.2, PEAK, warmup, FINAL) == pytest.approx(PEAK * FINAL)  # a step past the end


def test_wsd_refuses_parts_that_overlap():
    with pytest.raises(UserError, match=r"warmup = 0\.9 and decay = 0\.2"):
        SCHEDULES["wsd"](0.5, PEAK, 0.9, FINAL)
