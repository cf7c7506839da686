"""Compiled and plain are the same run; and when compiling pays, and what happens where it cannot be."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nano_llama.core.errors import EnvironmentFault  # noqa: E402
from nano_llama.training.callback import Callback  # noqa: E402
from nano_llama.training.metrics import read_metrics  # noqa: E402
from nano_llama.training.settings import TrainSettings  # noqa: E402
from nano_llama.vol2_torch import compiling  # noqa: E402
from nano_llama.vol2_torch.compiling import (  # noqa: E402
    compiled_orthogonalize,
    compiler_problem,
    pays,
    wants_compile,
)
from nano_llama.vol2_torch.optim import Muon  # noqa: E402
from nano_llama.vol2_torch.optim.muon import orthogonalize  # noqa: E402
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


def test_muon_s_products_are_compiled_on_a_gpu_where_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(compiling.torch, "compile", lambda function, **options: (function, options))
    settings = TrainSettings(data="x", max_steps=5, compile="on")
    cuda = torch.device("cuda")
    assert compiled_orthogonalize(settings, cuda) == (orthogonalize, {"dynamic": False})
    for other, place in ((settings, CPU), (settings.replace(compile="auto"), cuda)):
        assert compiled_orthogonalize(other, place) is orthogonalize


def test_compiled_it_is_the_same_function_and_is_compiled_before_the_first_step():
    products = torch.bfloat16  # as on a GPU
    compiled = torch.compile(orthogonalize, dynamic=False, fullgraph=True, backend="aot_eager")  # without C++ or Triton
    shapes = [(8, 8), (8, 20), (20, 8), (8, 8)]
    plain, faster = (
        [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes] for _ in range(2)
    )  # fmt: skip
    seen = []

    def counting(matrices, iterations, dtype):
        seen.append(tuple(matrices.shape))
        return compiled(matrices, iterations, dtype)

    optimizers = (
        Muon(plain, lr=0.1, products=products),
        Muon(faster, lr=0.1, products=products, orthogonalize=counting),
    )
    optimizers[1].warm_up()
    warm = list(seen)
    rng = torch.Generator().manual_seed(0)
    for one, other in zip(plain, faster, strict=True):
        one.grad = other.grad = torch.randn(one.shape, generator=rng)
    for optimizer in optimizers:
        optimizer.step()
    assert warm == seen[len(warm) :] == [(2, 8, 8), (2, 8, 20)]
    for one, other in zip(plain, faster, strict=True):
        assert (one - other).norm() < 0.02 * one.norm()
