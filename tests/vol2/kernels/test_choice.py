"""What the settings `attention` and `kernels` choose, refuse, and measure; the card is played by handed-in parts."""

import pytest
import torch

from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.training.metrics import read_metrics
from nano_llama.training.settings import TrainSettings
from nano_llama.vol1_numpy.trainer import NumpyBackend
from nano_llama.vol2_torch.kernels import choice, launch
from nano_llama.vol2_torch.kernels.choice import FUSED, PLAIN, check_kernels, choose_kernels
from nano_llama.vol2_torch.trainer import Trainer

CPU, CARD = torch.device("cpu"), torch.device("cuda")


def settings(**changes):
    return TrainSettings(data="x", max_steps=1, **changes)


@pytest.fixture
def heard():
    return []


@pytest.fixture
def choose(heard, tiny_config, monkeypatch):
    """choose(settings, took, agreeing): on a card where kernels take these seconds, and these agree."""
    config = tiny_config(hidden_size=64, num_attention_heads=4, num_key_value_heads=2)
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: object())

    def call(settings, took=None, agreeing=("flash_attention", *FUSED), proved=True, place=CARD):
        def seconds(*run):
            assert took is not None, "nothing is measured here"
            return took

        return choose_kernels(
            settings, config, place, torch.bfloat16, heard.append,
            check=lambda names, *run: set(names) & set(agreeing), seconds=seconds, proved=proved,
        )  # fmt: skip

    return call


def test_by_default_nothing_is_measured_and_nothing_changes(choose, heard):
    assert choose(settings(), proved=choice.PROVED_ON_A_CARD) is PLAIN
    assert choose(settings(attention="sdpa")) is PLAIN
    assert choose(settings(), place=CPU) is PLAIN and not heard


@pytest.mark.parametrize(
    "sdpa, triton, chosen", [(0.002, 0.001, "triton"), (0.001, 0.002, "sdpa"), (0.001, 0.001, "sdpa")]
)
def test_auto_takes_what_is_faster_and_says_so(choose, heard, sdpa, triton, chosen):
    kernels = choose(settings(), {"sdpa": sdpa, "triton": triton})
    assert kernels.figures == {
        "attention": chosen, "attention_ms": {"sdpa": 1e3 * sdpa, "triton": 1e3 * triton}
    }  # fmt: skip
    assert kernels.names == ({"flash_attention"} if chosen == "triton" else set())
    assert len(heard) == 1 and heard[0].startswith(f"Attention: {chosen}, 1.00 ms a layer forward and backward")


def test_auto_does_not_measure_what_fails_its_check_nor_where_a_clock_must_not_decide(choose, monkeypatch):
    assert choose(settings(), agreeing=()).figures == {"attention": "sdpa"}
    assert choose(settings(mesh="dp=2")) is PLAIN
    assert choose(settings(deterministic="on")) is PLAIN
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    assert choose(settings()) is PLAIN


@pytest.fixture
def without_triton(monkeypatch):
    def missing(feature):
        raise EnvironmentFault(f"{feature} needs the package 'triton'.", hint='pip install "nano-llama-engine[triton]"')

    monkeypatch.setattr(launch, "load_triton", missing)


@pytest.mark.parametrize("name, usual", [("attention", "sdpa"), ("kernels", "torch")])
def test_what_cannot_run_here_is_refused_with_both_ways_out(without_triton, recipe, tmp_path, name, usual):
    with pytest.raises(EnvironmentFault, match=f"{name} = triton: .* needs the package 'triton'") as caught:
        Trainer(recipe.replace(**{name: "triton"}), tmp_path / "run")
    assert f"--{name} {usual}" in caught.value.hint and "[triton]" in caught.value.hint


@pytest.mark.parametrize("name", ["attention", "kernels"])
def test_volume_1_has_none(name):
    with pytest.raises(UserError, match=f"{name} = 'triton': Volume 1"):
        NumpyBackend.check_settings(settings(engine="numpy", **{name: "triton"}))


@pytest.mark.triton
def test_bfloat16_is_refused_under_the_interpreter():
    with pytest.raises(UserError, match=r"attention = triton: flash_attention: .* bfloat16"):
        check_kernels(settings(attention="triton"), CPU, torch.bfloat16)


@pytest.mark.triton
@pytest.mark.parametrize("changes", [{"document_mask": True}, {"z_loss": 1e-3, "optimizer": "muon"}])
def test_a_run_with_kernels_has_the_losses_of_one_without(recipe, tmp_path, changes):
    shape = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 1}
    shape |= {"context": 64, "batch_size": 4, "max_steps": 3, "samples": 1, "sample_tokens": 4}
    rows = {}
    for name, own in (("plain", {}), ("kernels", {"attention": "triton", "kernels": "triton"})):
        Trainer(recipe.replace(**shape, **changes, **own), tmp_path / name).fit()
        rows[name] = read_metrics(tmp_path / name / "metrics.jsonl")
    for one, other in zip(*rows.values(), strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
    assert rows["kernels"][-1]["val_loss"] == pytest.approx(rows["plain"][-1]["val_loss"], rel=1e-5)
    assert rows["kernels"][-1]["attention"] == "triton" and rows["kernels"][-1]["kernels"] == sorted(FUSED)
    assert not {"attention", "kernels"} & set(rows["plain"][-1])
