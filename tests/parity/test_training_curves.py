"""Volume 1 and Volume 2 train alike: the same weights, batches and settings give the same curve, adapters too.

The full run at nanoGPT's shape is bench/volume1_vs_volume2.py.
"""

import pytest

from helpers.finetuning import save_chat_model, save_questions
from nano_llama.training import TrainSettings
from nano_llama.training.finetune import FinetuneSettings
from nano_llama.training.metrics import read_metrics
from nano_llama.vol1_numpy.trainer import Trainer as HandWritten

pytest.importorskip("torch")


@pytest.mark.parametrize(("optimizer", "accumulate", "steps"), [("adamw", 1, 50), ("muon", 1, 20), ("adamw", 3, 10)])
def test_training_losses_agree_within_1e_3_nats(tmp_path, optimizer, accumulate, steps):
    from nano_llama.vol2_torch.trainer import Trainer as Autograd

    text = tmp_path / "squares.txt"
    text.write_text("".join(f"{n} squared is {n * n}.\n" for n in range(1500)))
    settings = TrainSettings(
        data=str(text), tokenizer="char", hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=96, batch_size=4, context=32, accumulate=accumulate,
        optimizer=optimizer, lr=3e-3, max_steps=steps, log_every=1, evaluations=1, num_threads=1, device="cpu",
        engine="numpy",
    )  # fmt: skip
    HandWritten(settings, tmp_path / "one").fit()
    Autograd(settings.replace(engine="torch"), tmp_path / "two").fit()
    ours, theirs = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == list(range(1, steps + 1))
    for a, b in zip(ours, theirs, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-3), f"step {a['step']}"
        assert a.keys() | {"mfu"} == b.keys() | {"mfu"}, "MFU alone is Volume 2's: NumPy has no peak to measure"
    assert ours[-1]["val_loss"] == pytest.approx(theirs[-1]["val_loss"], rel=2e-3)
    assert ours[-1]["train_loss"] < 0.9 * ours[0]["train_loss"]


@pytest.mark.parametrize("changes", [{}, {"rslora": True, "alpha": 4.0, "accumulate": 2}, {"adapter": "dora"}], ids=str)
def test_an_adapter_learns_alike_from_the_same_examples(tmp_path, changes):
    from nano_llama.vol2_torch.trainer import Trainer as Autograd

    settings = FinetuneSettings(
        data=str(save_questions(tmp_path / "chats.jsonl")), init_from=str(save_chat_model(tmp_path / "base")),
        rank=4, lr=0.01, batch_size=4, context=96, max_steps=12, evaluations=1, samples=0, device="cpu",
        precision="fp32", packing=False, num_threads=1, engine="numpy",
        target_modules="q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj,lm_head", **changes,
    )  # fmt: skip
    HandWritten(settings, tmp_path / "one").fit()
    Autograd(settings.replace(engine="torch"), tmp_path / "two").fit()
    ours, theirs = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    for a, b in zip(ours, theirs, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-5), f"step {a['step']}"
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-5), f"step {a['step']}"
    assert ours[-1]["val_loss"] == pytest.approx(theirs[-1]["val_loss"], rel=1e-4)
    assert ours[-1]["train_loss"] < ours[0]["train_loss"] - 0.5
