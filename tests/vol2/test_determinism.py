"""deterministic = on: PyTorch is told so throughout a run and no longer, what cannot be so is an error of ours."""

import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nano_llama.core import env  # noqa: E402
from nano_llama.core.errors import EnvironmentFault, UserError  # noqa: E402
from nano_llama.formats import open_weights  # noqa: E402
from nano_llama.training.metrics import read_metrics  # noqa: E402
from nano_llama.vol2_torch.determinism import (  # noqa: E402
    deterministic_algorithms,
    is_deterministic,
    prepare_determinism,
)
from nano_llama.vol2_torch.trainer import Trainer  # noqa: E402
from nano_llama.vol2_torch.training_device import TorchDevice  # noqa: E402

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


def told():
    """What PyTorch is told at this moment."""
    return (
        torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )  # fmt: skip


def nondeterministic():
    """An operation that PyTorch has no deterministic kernel for, even on a CPU."""
    torch.zeros(4).put_(torch.tensor([1, 1]), torch.tensor([1.0, 2.0]))


@pytest.fixture
def workspace(monkeypatch):
    """The variable as it was, whatever a test does."""
    monkeypatch.setenv(env.CUBLAS_VARIABLE, ":4096:8")
    monkeypatch.delenv(env.CUBLAS_VARIABLE)
    return monkeypatch


def weights(folder):
    with open_weights(folder) as saved:
        return {name: np.array(saved[name]).tobytes() for name in saved}


@pytest.mark.parametrize(
    ("setting", "place", "same"),
    [("auto", CPU, True), ("off", CPU, True), ("on", CPU, True), ("auto", CUDA, False), ("off", CUDA, False),
     ("on", CUDA, True), ("auto", MPS, False)],
)  # fmt: skip
def test_what_each_setting_promises(setting, place, same):
    assert is_deterministic(setting, place) == same
    assert TorchDevice(place, torch.float32, determinism=setting).deterministic == same


def test_what_pytorch_was_told_before_is_restored():
    before = told()
    with deterministic_algorithms():
        assert told() == (True, False, False)
        assert torch._inductor.config.deterministic, "torch.compile measures nothing"
        with deterministic_algorithms():
            pass
        assert told() == (True, False, False)
    assert told() == before and not torch._inductor.config.deterministic
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with pytest.raises(ZeroDivisionError), deterministic_algorithms():
            raise ZeroDivisionError
        assert told() == (True, True, before[2])
    finally:
        torch.use_deterministic_algorithms(False)


def test_what_has_no_deterministic_kernel_is_said():
    nondeterministic()
    with pytest.raises(EnvironmentFault, match="deterministic = on: put_") as found, deterministic_algorithms():
        nondeterministic()
    assert "--deterministic auto" in found.value.hint
    with pytest.raises(RuntimeError, match="size"), deterministic_algorithms():
        torch.zeros(3) @ torch.zeros(4)


def test_the_whole_run_is_told_and_has_the_same_bits(recipe, tmp_path):
    settings = recipe.replace(dropout=0.2, optimizer="muon", evaluations=2, deterministic="on")
    seen = {}

    class Stop(BaseException):
        pass

    def looks(trainer, stop=None):
        for name in ("gradient", "update", "eval_loss_sum"):
            method = getattr(trainer.backend, name)

            def looked(*arguments, name=name, method=method):
                seen.setdefault(name, set()).add(told()[0])
                if name == "update" and trainer.state.step == stop:
                    raise Stop
                return method(*arguments)

            setattr(trainer.backend, name, looked)
        return trainer

    looks(Trainer(settings, tmp_path / "one")).fit()
    assert seen == {"gradient": {True}, "update": {True}, "eval_loss_sum": {True}} and not told()[0]
    assert all(row["deterministic"] for row in read_metrics(tmp_path / "one/metrics.jsonl"))
    with pytest.raises(Stop):
        looks(Trainer(settings, tmp_path / "killed"), stop=8).fit()
    assert not told()[0]
    Trainer(settings, tmp_path / "killed", resume=True).fit()
    Trainer(settings.replace(deterministic="auto"), tmp_path / "auto").fit()
    assert weights(tmp_path / "one") == weights(tmp_path / "killed")
    assert weights(tmp_path / "one") == weights(tmp_path / "auto"), "on a CPU it is true anyway"


def test_a_gpu_gets_its_workspace_and_what_cannot_be_promised_is_refused(recipe, workspace):
    on = recipe.replace(deterministic="on")
    for setting, place in (("on", CPU), ("auto", CUDA), ("off", CUDA)):
        prepare_determinism(recipe.replace(deterministic=setting), place)
        assert env.CUBLAS_VARIABLE not in os.environ
    prepare_determinism(on, CUDA)
    assert os.environ[env.CUBLAS_VARIABLE] == ":4096:8"
    workspace.setenv(env.CUBLAS_VARIABLE, ":16:8")
    prepare_determinism(on, CUDA)
    assert os.environ[env.CUBLAS_VARIABLE] == ":16:8", "the user's choice"
    workspace.setenv(env.CUBLAS_VARIABLE, ":4096:2")
    with pytest.raises(UserError, match="CUBLAS_WORKSPACE_CONFIG=:4096:2"):
        prepare_determinism(on, CUDA)
    with pytest.raises(UserError, match="not on mps"):
        prepare_determinism(on, MPS)
    with pytest.raises(UserError, match="several GPUs"):
        prepare_determinism(on.replace(mesh="dp=2"), CUDA)
