"""Averages of the weights: against their formulas, in the trainer, and in what a run leaves."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("schedulefree")

from nano_llama.core.errors import UserError  # noqa: E402
from nano_llama.data.batches import Batches  # noqa: E402
from nano_llama.training.settings import TrainSettings  # noqa: E402
from nano_llama.vol1_numpy.optim import EMA as EMAByHand  # noqa: E402
from nano_llama.vol2_torch import Llama  # noqa: E402
from nano_llama.vol2_torch.evaluate import evaluate_model  # noqa: E402
from nano_llama.vol2_torch.optim import EMA, make_average, make_optimizers  # noqa: E402
from nano_llama.vol2_torch.trainer import Trainer  # noqa: E402


def test_ten_steps_of_ema_are_those_of_volume_1(tiny_config):
    parameters = Llama.init(tiny_config()).named_params()
    arrays = {name: parameter.detach().numpy() for name, parameter in parameters.items()}  # the same memory
    ours, by_hand = EMA(parameters, 0.4), EMAByHand(arrays, 0.4)
    rng = np.random.default_rng(0)
    for _ in range(10):
        for array in arrays.values():
            array += rng.standard_normal(array.shape).astype(np.float32)
        ours.update()
        by_hand.update(arrays)
    for name, average in ours.weights().items():
        np.testing.assert_allclose(average.numpy(), by_hand.params[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_schedule_free_is_the_papers():
    """Algorithm 1 of Defazio et al. 2024 with AdamW's direction, written out in float64: x is kept, not derived."""
    settings = TrainSettings(
        max_steps=1, optimizer="schedulefree", schedule="constant", lr=0.02, weight_decay=0.3, beta2=0.95
    )
    name, b1, b2 = "model.layers.0.mlp.up_proj.weight", 0.9, 0.95
    rng = np.random.default_rng(1)
    parameter = torch.nn.Parameter(torch.from_numpy(rng.standard_normal((5, 7)).astype(np.float32)))
    (optimizer,) = make_optimizers({name: parameter}, settings)
    average = make_average({name: parameter}, [optimizer], settings)
    x = z = parameter.detach().numpy().astype(np.float64)
    np.testing.assert_array_equal(average.weights()[name].numpy(), x)
    v, weights, highest = np.zeros_like(x), 0.0, 0.0
    for t in range(1, 11):
        lr = 0.02 * min(t / 4, 1.0)  # a warmup; the average weighs each step by the highest lr so far, squared
        grad = rng.standard_normal(x.shape).astype(np.float32)
        y = (1 - b1) * z + b1 * x
        v = b2 * v + (1 - b2) * grad.astype(np.float64) ** 2
        z = z - lr * (grad / (np.sqrt(v / (1 - b2**t)) + 1e-8) + 0.3 * y)
        highest = max(highest, lr)
        weights += highest**2
        x = x + highest**2 / weights * (z - x)
        parameter.grad = torch.from_numpy(grad.copy())
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        np.testing.assert_allclose(average.weights()[name].numpy(), x, rtol=1e-4, atol=1e-5)


@pytest.fixture(params=["ema", "schedulefree"])
def averaging(recipe, request):
    kinds = {"ema": {"ema": 0.9}, "schedulefree": {"optimizer": "schedulefree", "schedule": "constant"}}
    return recipe.replace(**kinds[request.param])


def saved(folder):
    return {name: value.detach().clone() for name, value in Llama.from_pretrained(folder).named_params().items()}


def test_the_average_is_evaluated_and_saved(averaging, tmp_path):
    trainer = Trainer(averaging, tmp_path / "run")
    result = trainer.fit()
    for name, value in saved(tmp_path / "run").items():
        torch.testing.assert_close(value, trainer.backend.average.weights()[name], rtol=0, atol=0)
        if value.ndim == 2:
            assert not torch.equal(value, trainer.backend.parameters[name]), name
    assert evaluate_model(tmp_path / "run").loss == pytest.approx(result.evaluation.loss, abs=1e-6)


def test_evaluation_does_not_change_the_run(averaging, tmp_path):
    for evaluations in (1, 6):
        Trainer(averaging.replace(evaluations=evaluations), tmp_path / f"{evaluations}").fit()
    seldom, often = (saved(tmp_path / f"{evaluations}") for evaluations in (1, 6))
    for name, value in seldom.items():
        assert torch.equal(value, often[name]), name


def test_use_averaged_weights_swaps_the_average_in_and_out(averaging, tmp_path):
    trainer = Trainer(averaging, tmp_path / "run")
    trainer.fit()
    val = trainer.dataset.val
    batch = next(Batches(val, 8, 16, seed=0))
    trained = trainer.backend.eval_loss_sum(*batch)
    with trainer.backend.use_averaged_weights():
        averaged = trainer.backend.eval_loss_sum(*batch)
    alone = Trainer(averaging.replace(ema=0.0, optimizer="adamw"), tmp_path / "other")
    alone.backend.model.load_params({name: value.numpy() for name, value in trainer.backend.average.weights().items()})
    assert averaged == alone.backend.eval_loss_sum(*batch) != trained
    assert trainer.backend.eval_loss_sum(*batch) == trained


@pytest.mark.parametrize("changes", [{"schedule": "cosine"}, {"ema": 0.9}, {"beta1": 0.0}])
def test_what_schedule_free_cannot_honour_is_refused(changes):
    with pytest.raises(UserError, match="schedulefree"):
        TrainSettings(**{"max_steps": 1, "optimizer": "schedulefree", "schedule": "constant", **changes})
