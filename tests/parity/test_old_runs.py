"""Runs made by nano-llama 0.1 are read: resumed from their checkpoint, with the losses that 0.1 went on to; and loaded.

tests/fixtures/run_0_1: a run of 8 steps by each engine (Muon, EMA 0.9, fp32, one thread), of whose checkpoints the one
at step 4 is left.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nano_llama.training.metrics import read_metrics
from nano_llama.vol1_numpy import Llama

OLD = Path(__file__).parents[1] / "fixtures" / "run_0_1"


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_a_run_of_0_1_is_resumed(tmp_path, monkeypatch, engine):
    from nano_llama.cli import main

    if engine == "torch":
        pytest.importorskip("torch")
    shutil.copytree(OLD / engine, tmp_path / "run")
    shutil.copy(OLD / "text.txt", tmp_path)
    monkeypatch.chdir(tmp_path)  # its train.json says "text.txt"
    assert json.loads((tmp_path / "run/train.json").read_text())["attend_across"] is True, "a setting of old"
    expected = read_metrics(OLD / engine / "metrics.jsonl")
    assert main(["train", "--out", str(tmp_path / "run"), "--resume", "--quiet"]) == 0
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert rows[:4] == expected[:4]
    for row, old in zip(rows[4:], expected[4:], strict=True):
        assert row["train_loss"] == pytest.approx(old["train_loss"], rel=1e-5)
    assert rows[-1]["val_loss"] == pytest.approx(expected[-1]["val_loss"], rel=1e-5)
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000008" / "state.json"
    assert json.loads(checkpoint.read_text())["version"] == 3


def test_an_old_run_whose_text_has_changed_is_not_resumed(tmp_path, monkeypatch, capsys):
    from nano_llama.cli import main

    shutil.copytree(OLD / "numpy", tmp_path / "run")
    (tmp_path / "text.txt").write_text((OLD / "text.txt").read_text().replace("cat", "cow"))
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--out", str(tmp_path / "run"), "--resume", "--quiet"]) == 2
    assert "has changed since" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_a_model_exported_by_0_1_is_loaded(engine):
    model = Llama.from_pretrained(OLD / engine)
    tokens = np.arange(8)[None] % model.config.vocab_size
    assert np.isfinite(model.forward(tokens)).all()
    if engine == "torch":
        torch = pytest.importorskip("torch")
        from nano_llama.vol2_torch import Llama as TorchLlama

        theirs = TorchLlama.from_pretrained(OLD / engine)(torch.from_numpy(tokens)).detach().numpy()
        np.testing.assert_allclose(model.forward(tokens), theirs, rtol=1e-4, atol=1e-4)
