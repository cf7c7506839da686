"""Which format is chosen, and that half precision rounds matrix products and nothing else."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nano_llama.training.settings import TrainSettings  # noqa: E402
from nano_llama.vol2_torch import Llama, precision  # noqa: E402
from nano_llama.vol2_torch.loss import loss_sum  # noqa: E402
from nano_llama.vol2_torch.precision import Precision, resolve_precision  # noqa: E402

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "features, width, chosen",
    [
        ({"avx2": True}, 512, "fp32"),
        ({}, 512, "fp32"),
        ({"avx512_bf16": True}, 512, "bf16"),
        ({"amx_bf16": True}, 512, "bf16"),
        ({"amx_bf16": True}, 64, "fp32"),
    ],
)
def test_auto_takes_bf16_only_where_the_processor_supports_it(monkeypatch, features, width, chosen):
    monkeypatch.setattr(precision, "cpu_features", lambda: features)
    assert resolve_precision("auto", CPU, width).name == chosen
    assert resolve_precision("fp16", CPU, width).name == "fp16", "what is asked for is taken"


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_only_matrix_products_are_rounded(tiny_config, name):
    model, chosen = Llama.init(tiny_config()), Precision(name, "cpu")
    tokens = torch.randint(0, model.config.vocab_size, (2, 16), generator=torch.Generator().manual_seed(0))
    exact = loss_sum(model, tokens, tokens)
    with chosen.autocast():
        assert model.model.layers[0].mlp.up_proj(torch.ones(1, model.config.hidden_size)).dtype == chosen.dtype
        assert model.model.norm(torch.ones(1, model.config.hidden_size)).dtype == torch.float32
        assert model.hidden_states(tokens).dtype == torch.float32
        rounded = loss_sum(model, tokens, tokens)
    assert rounded.dtype == torch.float32
    assert 0 < abs(rounded.item() - exact.item()) < chosen.rounding * exact.item()
    rounded.backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters())


def test_a_run_in_bf16_learns_as_one_in_fp32(recipe, tmp_path):
    from nano_llama.training.metrics import read_metrics
    from nano_llama.vol2_torch.trainer import Trainer

    curves = []
    for name in ("fp32", "bf16"):
        Trainer(recipe.replace(precision=name), tmp_path / name).fit()
        curves.append(np.array([row["train_loss"] for row in read_metrics(tmp_path / name / "metrics.jsonl")]))
    assert 0 < np.abs(curves[0] - curves[1]).max() < 0.02


def test_volume_1_refuses_what_it_cannot_do(recipe, tmp_path):
    from nano_llama.core.errors import UserError
    from nano_llama.vol1_numpy.trainer import Trainer

    plain = TrainSettings(**{**recipe.to_json(), "engine": "numpy"})
    for change in ({"precision": "bf16"}, {"compile": "on"}):
        with pytest.raises(UserError, match=r"NumPy|Volume 1"):
            Trainer(plain.replace(**change), tmp_path / "run")
