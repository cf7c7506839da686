"""The learning rate's curves, against torch's schedulers and their closed forms."""

import numpy as np
import pytest

from nano_llama.core.errors import UserError
from nano_llama.training.schedule import NAMES, learning_rate, warmup_cosine, warmup_stable_decay


def test_the_corners():
    assert warmup_cosine(0.0, 2.0, 0.1, 0.2) == 0.0
    assert warmup_cosine(0.05, 2.0, 0.1, 0.2) == pytest.approx(1.0)
    assert warmup_cosine(0.1, 2.0, 0.1, 0.2) == pytest.approx(2.0)
    assert warmup_cosine(0.55, 2.0, 0.1, 0.2) == pytest.approx(2.0 * (0.2 + 0.8 / 2))
    assert warmup_cosine(1.0, 2.0, 0.1, 0.2) == pytest.approx(0.4)
    assert warmup_cosine(0.0, 2.0, 0.0, 0.2) == 2.0, "without a warmup it begins at the peak"
    assert warmup_cosine(1.0, 2.0, 1.0, 0.2) == pytest.approx(0.4), "all warmup is still defined at the end"


def test_it_is_the_curve_of_torchs_schedulers():
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.3)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1e-9, total_iters=20),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=180, eta_min=0.03),
        ],
        milestones=[20],
    )
    for step in range(200):
        assert warmup_cosine(step / 200, 0.3, 0.1, 0.1) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-8)
        optimizer.step()
        schedule.step()


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
    ours = [learning_rate(name, step / STEPS, PEAK, 0.1, FINAL) for step in range(STEPS)]
    np.testing.assert_allclose(ours, torch_curve(name, STEPS // 10), rtol=1e-9, atol=1e-12)


def test_wsd_is_flat_between_its_two_lines():
    progress = np.array([0.0, 0.05, 0.1, 0.5, 0.75, 0.875, 1.0])
    rates = [warmup_stable_decay(p, PEAK, 0.1, FINAL, decay=0.25) for p in progress]
    np.testing.assert_allclose(rates, PEAK * np.array([0, 0.5, 1, 1, 1, 0.55, 0.1]), rtol=1e-12)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.3, 0.8])
def test_every_curve_rises_to_the_peak_and_ends_at_its_part(name, warmup):
    curve = [learning_rate(name, p, PEAK, warmup, FINAL) for p in np.linspace(0, 1, 1001)]
    assert max(curve) == pytest.approx(PEAK) and curve[-1] == pytest.approx(PEAK * FINAL)
    assert curve[0] == (PEAK if warmup == 0 else 0)
    top = int(1000 * warmup)
    assert np.all(np.diff(curve[: top + 1]) > 0) and np.all(np.diff(curve[top:]) <= 1e-15)
    assert learning_rate(name, 1.2, PEAK, warmup, FINAL) == pytest.approx(PEAK * FINAL)  # a step past the end


def test_wsd_refuses_parts_that_overlap():
    with pytest.raises(UserError, match=r"warmup = 0\.9 and decay = 0\.2"):
        learning_rate("wsd", 0.5, PEAK, 0.9, FINAL)


def test_constant_rises_and_stays():
    assert learning_rate("constant", 0.05, 2.0, 0.1, 0.2) == pytest.approx(1.0)
    assert [learning_rate("constant", progress, 2.0, 0.1, 0.2) for progress in (0.1, 0.7, 1.0)] == [2.0] * 3
    assert learning_rate("constant", 1.0, 2.0, 0.0, 0.2) == 2.0
