"""Both engines end an overfitting run with the best checkpoint's model: weights, averages or an adapter."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("schedulefree")

from helpers.finetuning import save_chat_model, save_questions
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.formats import read_config
from nano_llama.formats.peft import read_adapter
from nano_llama.training.finetune import FinetuneSettings
from nano_llama.training.finetune.examination import KeepBefore
from nano_llama.training.finetune.run import fit_with_report
from nano_llama.training.settings import TrainSettings
from nano_llama.vol1_numpy.trainer import Trainer as NumpyTrainer
from nano_llama.vol2_torch.trainer import Trainer as TorchTrainer

TRAINERS = {"numpy": NumpyTrainer, "torch": TorchTrainer}
KINDS = {"plain": {}, "ema": {"ema": 0.9}, "schedulefree": {"optimizer": "schedulefree", "schedule": "constant"}}


def overfitting(trainer):
    """Its validation loss rises after step 4: every counted token costs as much more as steps have passed since."""
    measured = trainer.backend.eval_loss_sum

    def loss_sum(tokens, targets, documents=None):
        late = max(trainer.state.step - 4, 0)
        return measured(tokens, targets) + late * int(np.count_nonzero(targets != IGNORE_INDEX))

    trainer.backend.eval_loss_sum = loss_sum
    return trainer


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("engine", "kind"),
    [("numpy", "plain"), ("numpy", "ema"), ("torch", "plain"), ("torch", "ema"), ("torch", "schedulefree")],
)
def test_of_weights_and_averages(engine, kind, tale, tmp_path):
    settings = TrainSettings(
        data=str(tale), tokenizer="char", model="tiny", context=16, batch_size=4, lr=0.01, max_steps=8, evaluations=4,
        engine=engine, device="cpu", num_threads=1, samples=0, **KINDS[kind],
    )  # fmt: skip
    trainer, out = overfitting(TRAINERS[engine](settings, tmp_path / "run")), tmp_path / "run"
    result = trainer.fit()
    opened, best, last = (
        dict(trainer.model.open(folder)) for folder in (out, out / "checkpoints/step-00000004", *out.glob("*/*8"))
    )
    assert result.model_step == 4 and same(opened, best) and not same(opened, last)
    assert same(opened, dict(trainer.backend.weights())), "and the trainer computes with it"
    with trainer.backend.use_averaged_weights():
        trainer.state.step = 0  # no penalty
        nats = sum(trainer.backend.eval_loss_sum(*batch[:2]) for batch in trainer.validator.data.batches())
    assert nats / result.evaluation.tokens == pytest.approx(result.evaluation.loss, rel=1e-6)


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_of_an_adapter_which_is_examined(engine, tmp_path):
    base = save_chat_model(tmp_path / "base", hidden_size=64, intermediate_size=96)
    settings = FinetuneSettings(
        data=str(save_questions(tmp_path / "chats.jsonl", 20)), init_from=str(base), lr=0.01, batch_size=2, context=96,
        max_steps=8, evaluations=4, engine=engine, device="cpu", num_threads=1, samples=1, sample_tokens=8,
        held_out="none",
    )  # fmt: skip
    out = tmp_path / "run"
    trainer = overfitting(TRAINERS[engine](settings, out))
    done = fit_with_report(trainer, KeepBefore())
    config = read_config(base)
    found, best = (read_adapter(folder, config).tensors for folder in (out, out / "checkpoints/step-00000004"))
    assert done.result.model_step == 4 and same(dict(found), dict(best))
    assert done.after.validation.loss - (8 - 4) == pytest.approx(done.result.evaluation.loss, rel=1e-5)
    assert "the model of step 4" in done.report.read_text()
