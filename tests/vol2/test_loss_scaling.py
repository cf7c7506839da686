"""The loss scale: it comes down where gradients overflow, goes up where they do not, and is kept in checkpoints."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nano_llama.training.metrics import read_metrics  # noqa: E402
from nano_llama.vol2_torch import loss_scaling  # noqa: E402
from nano_llama.vol2_torch.loss_scaling import LossScale  # noqa: E402
from nano_llama.vol2_torch.trainer import Trainer  # noqa: E402


def losses(folder):
    return [row["train_loss"] for row in read_metrics(folder / "metrics.jsonl")]


def test_the_scale_falls_at_once_and_rises_slowly(monkeypatch):
    monkeypatch.setattr(loss_scaling, "GROWTH_INTERVAL", 3)
    scale = LossScale(4.0)
    assert scale.lower() and scale.factor == 2.0
    for _ in range(3):
        scale.count()
    assert scale.factor == 4.0 and scale.good == 0
    assert scale.lower() and scale.lower() and not scale.lower(), "at 1 it is not the scale's fault"
    again = LossScale()
    again.load(scale.to_array())
    assert again == scale


def test_fp16_learns_as_fp32_and_no_batch_is_lost_to_an_overflow(recipe, tmp_path):
    Trainer(recipe, tmp_path / "fp32").fit()
    trainer = Trainer(recipe.replace(precision="fp16"), tmp_path / "fp16")
    trainer.backend.scale.factor = 2.0**24  # much too large
    trainer.fit()
    assert trainer.backend.scale.factor < 2.0**24 and trainer.state.watchdog.skipped == 0
    assert np.abs(np.array(losses(tmp_path / "fp32")) - losses(tmp_path / "fp16")).max() < 0.01


def test_a_resumed_run_keeps_its_scale(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(loss_scaling, "GROWTH_INTERVAL", 5)
    settings = recipe.replace(precision="fp16", checkpoint_minutes=0.0)
    whole = Trainer(settings, tmp_path / "whole")
    whole.fit()
    Trainer(settings.replace(max_steps=7), tmp_path / "short").fit()
    trainer = Trainer(settings, tmp_path / "short", resume=True)
    assert trainer.backend.scale.factor != LossScale().factor and trainer.backend.scale.good == 2
    trainer.fit()
    assert trainer.backend.scale == whole.backend.scale and not math.isnan(losses(tmp_path / "short")[-1])
