"""One's own optimizer from a file: what is loaded, what is refused, and that `train` takes it in both volumes."""

import numpy as np
import pytest

from nano_llama.core.errors import UserError
from nano_llama.training.optimizers import OPTIMIZER_NAMES, load_optimizer, taken
from nano_llama.training.settings import TrainSettings
from nano_llama.vol1_numpy.optim import OPTIMIZERS, Optimizer
from nano_llama.vol1_numpy.trainer import NumpyBackend, optimizer_class

NUMPY = """
import numpy as np
from nano_llama.vol1_numpy.optim import Optimizer

class SignSGD(Optimizer):
    def update(self, name, param, grad, lr):
        param -= lr * np.sign(grad)

class Other: pass
"""
TORCH = """
import torch

class SignSGD(torch.optim.Optimizer):
    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * p.grad.sign()
"""


@pytest.fixture
def own(tmp_path):
    def write(text):
        (tmp_path / "own.py").write_text(text)
        return f"{tmp_path / 'own.py'}:"

    return write


def test_a_class_of_a_file_updates_as_it_says(own):
    params = {"w.weight": np.ones((2, 2), np.float32)}
    load_optimizer(own(NUMPY) + "SignSGD", Optimizer)(params, 0.5).step(params, {"w.weight": np.full((2, 2), -3.0)})
    assert (params["w.weight"] == 1.5).all()


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        (NUMPY, "Missing", "no subclass 'Missing' of .*\\nIt has SignSGD\\.$"),
        (
            "class Own: pass",
            "Own",
            "no subclass 'Own' of .*\\nIt has none\\. One of the other volume needs --engine torch",
        ),
        (NUMPY, "Other", "no subclass 'Other'"),
        ("1 / 0", "SignSGD", "fails when it is imported: ZeroDivisionError"),
    ],
)
def test_what_cannot_be_loaded_is_named(own, text, name, says):
    with pytest.raises(UserError, match=f"(?s){says}"):
        load_optimizer(own(text) + name, Optimizer)


def test_settings_take_names_and_files():
    for name in (*OPTIMIZER_NAMES, "my_file.py:MyOptimizer"):
        TrainSettings(data="x", optimizer=name, schedule="constant")
    with pytest.raises(UserError, match=r"optimizer = 'adamm' must be adamw or .* my_file.py:MyOptimizer"):
        TrainSettings(data="x", optimizer="adamm")
    with pytest.raises(UserError, match=r"there is no file nowhere\.py"):
        NumpyBackend.check_settings(TrainSettings(data="x", optimizer="nowhere.py:X", engine="numpy"))


def test_every_optimizer_of_volume_1_can_be_trained_with():
    assert {*OPTIMIZERS} == {*OPTIMIZER_NAMES} - {"schedulefree"}
    assert all(optimizer_class(name) is OPTIMIZERS[name] for name in OPTIMIZERS)
    with pytest.raises(UserError, match="schedulefree"):
        optimizer_class("schedulefree")
    assert taken(OPTIMIZERS["lion"], betas=1) == {"betas": 1} and taken(OPTIMIZERS["sgd"], betas=1) == {}


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_a_run_with_one_s_own_lowers_the_loss(own, tmp_path, engine):
    if engine == "torch":
        pytest.importorskip("torch")
    from nano_llama.cli.train import make_trainer

    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    settings = TrainSettings(
        data=str(tmp_path / "text.txt"), tokenizer="char", model="tiny", engine=engine, max_steps=30, batch_size=4,
        context=16, lr=5e-3, optimizer=own(NUMPY if engine == "numpy" else TORCH) + "SignSGD", compile="off",
    )  # fmt: skip
    result = make_trainer(settings, tmp_path / "run").fit()
    assert result.evaluation is not None and result.evaluation.loss < np.log(28) - 0.3
