"""Every kernel passes its check; one with a fault, or that does not run, is left out, once said, and a run goes on."""

import dataclasses
from importlib import import_module

import pytest
import torch

from helpers.kernels import plant
from nano_llama.core.errors import UserError
from nano_llama.training.callback import Callback
from nano_llama.training.metrics import read_metrics
from nano_llama.vol2_torch.trainer import Trainer

pytestmark = pytest.mark.triton
CPU = torch.device("cpu")
KERNELS = ["flash_attention", "rmsnorm", "rope", "swiglu", "cross_entropy"]


@pytest.fixture
def config(tiny_config):
    return tiny_config(hidden_size=32, num_attention_heads=2, num_key_value_heads=1)


@pytest.fixture
def self_check(interpreter):
    from nano_llama.vol2_torch.kernels import self_check

    return self_check


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", KERNELS)
def test_what_is_right_passes_by_far(self_check, config, name, dtype):
    check = self_check.checks(config, CPU, dtype)[name]
    assert self_check.difference(check, CPU, dtype) < self_check.BOUNDS[dtype] / 4
    assert self_check.problem(check, CPU, dtype) == ""


def test_it_draws_from_no_generator_of_the_run(self_check, config):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    self_check.problem(self_check.checks(config, CPU, torch.float32)["swiglu"], CPU, torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "module, kernel, right, wrong",
    [
        ("rmsnorm", "rmsnorm_kernel", "axis=1) / D + eps)", "axis=1) / D) + eps"),
        ("rope", "rope_kernel", "* sign", "* 1.0"),
        ("swiglu", "swiglu_backward_kernel", "(dy * gate * s)", "(dy * s)"),
        ("cross_entropy", "cross_entropy_kernel", "tl.where(counted, losses, 0.0)", "losses"),
    ],
)
def test_a_fault_stands_out_from_rounding(self_check, config, monkeypatch, tmp_path, module, kernel, right, wrong):
    plant(monkeypatch, tmp_path, import_module(f"nano_llama.vol2_torch.kernels.{module}"), kernel, right, wrong)
    for dtype in (torch.float32, torch.float16):
        found = self_check.problem(self_check.checks(config, CPU, dtype)[module], CPU, dtype)
        assert "differs from its plain form by" in found


def test_no_number_is_no_agreement_and_an_error_is_told(self_check, config):
    check = self_check.checks(config, CPU, torch.float32)["swiglu"]

    def broken(*inputs):
        raise RuntimeError("out of resource: shared memory\nand more")

    nan = check._replace(kernel=lambda gate, up: check.reference(gate, up) * torch.nan)
    assert "by nan" in self_check.problem(nan, CPU, torch.float32)
    found = self_check.problem(check._replace(kernel=broken), CPU, torch.float32)
    assert found == "it does not run here (RuntimeError: out of resource: shared memory)"


def test_what_a_kernel_refuses_is_refused(self_check, config):
    check = self_check.checks(config, CPU, torch.bfloat16)["rope"]
    with pytest.raises(UserError, match="bfloat16"):
        self_check.problem(check, CPU, torch.bfloat16)


class Ears(Callback):
    def __init__(self):
        self.heard = []

    def notice(self, text):
        self.heard.append(text)


def test_a_run_without_the_kernel_that_fails(self_check, recipe, monkeypatch, tmp_path):
    from nano_llama.vol2_torch.kernels import rope

    short = recipe.replace(max_steps=3, context=64, batch_size=4, samples=0, kernels="triton")
    plant(monkeypatch, tmp_path, rope, "rope_kernel", "* sign", "* 1.0")
    ears, rows = Ears(), {}
    for name, settings in (("triton", short), ("torch", dataclasses.replace(short, kernels="torch"))):
        Trainer(settings, tmp_path / name, progress=ears).fit()
        rows[name] = read_metrics(tmp_path / name / "metrics.jsonl")
    assert [text[:27] for text in ears.heard if "kernel" in text] == ["The kernel rope is not used"]
    assert rows["triton"][-1]["kernels"] == ["cross_entropy", "rmsnorm", "swiglu"]
    for one, other in zip(*rows.values(), strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
