"""The learning rate's curve, against torch's schedulers."""

import pytest

from nano_llama.core.training.schedule import warmup_cosine


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
