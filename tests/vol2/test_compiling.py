"""Compiled and plain are the same run; and when compiling pays, and what happens where it cannot be."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nano_llama.core.errors import EnvironmentFault  # noqa: E402
from nano_llama.training.callback import Callback  # noqa: E402
from nano_llama.training.metrics import read_metrics  # noqa: E402
from nano_llama.training.settings import TrainSettings  # noqa: E402
from nano_llama.vol2_torch import compiling  # noqa: E402
from nano_llama.vol2_torch.compiling import compiler_problem, pays, wants_compile  # noqa: E402
from nano_llama.vol2_torch.trainer import Trainer  # noqa: E402

CPU = torch.device("cpu")
MILLION = 1_000_000


class Ears(Callback):
    def __init__(self):
        self.heard = []

    def notice(self, text):
        self.heard.append(text)


@pytest.mark.skipif(bool(compiler_problem(CPU)), reason="no compiler here")
def test_a_compiled_run_is_the_plain_run(recipe, tmp_path):
    curves = []
    for compiled in ("off", "on"):
        ears = Ears()
        Trainer(recipe.replace(compile=compiled), tmp_path / compiled, progress=ears).fit()
        curves.append([row["train_loss"] for row in read_metrics(tmp_path / compiled / "metrics.jsonl")])
        assert any("compiled" in text for text in ears.heard) == (compiled == "on")
    np.testing.assert_allclose(curves[1], curves[0], rtol=2e-5)


def test_a_failing_compiler_stops_only_compile_on(recipe, tmp_path, monkeypatch):
    class Broken(torch._dynamo.exc.TorchDynamoException):
        pass

    def refuse(*arguments):
        raise Broken("Python.h: no such file")

    monkeypatch.setattr(compiling.torch, "compile", lambda function, **options: refuse)
    monkeypatch.setattr(compiling, "compile_layers", lambda model: None)
    monkeypatch.setattr(compiling, "pays", lambda *arguments: True)
    monkeypatch.setattr(compiling, "compiler_problem", lambda device: "")
    ears = Ears()
    trainer = Trainer(recipe.replace(compile="auto"), tmp_path / "auto", progress=ears)
    trainer.fit()
    assert not trainer.backend.compiled and any("Python.h" in text for text in ears.heard)
    with pytest.raises(EnvironmentFault, match="no such file"):
        Trainer(recipe.replace(compile="on"), tmp_path / "on").fit()


@pytest.mark.parametrize(
    "length, parameters, paid",
    [
        ({"max_minutes": 0.5}, MILLION, False),
        ({"max_minutes": 2.0}, MILLION, True),
        ({"max_steps": 20}, MILLION, False),
        ({"max_steps": 2000}, MILLION, True),  # 6 x 1e6 x 4096 x 2000 = 5e13
        ({"max_steps": 20}, 1000 * MILLION, True),
    ],
)
def test_compiling_pays_in_long_runs(length, parameters, paid):
    assert pays(TrainSettings(data="x", batch_size=16, context=256, **length), parameters, CPU) == paid


def test_without_a_compiler_auto_runs_and_on_is_refused(monkeypatch):
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    settings = TrainSettings(data="x", max_minutes=5.0)
    compiled, notice = wants_compile(settings, MILLION, CPU)
    assert not compiled and "no C++ compiler" in notice
    assert wants_compile(settings.replace(compile="off"), MILLION, CPU) == (False, "")
    with pytest.raises(EnvironmentFault, match="no C"):
        wants_compile(settings.replace(compile="on"), MILLION, CPU)
