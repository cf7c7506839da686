"""The studies' model: by default a LLaMA; every variant has right gradients and does what its name says."""

import itertools

import numpy as np
import pytest

from nano_llama.core.errors import ConfigError, UserError
from nano_llama.studies.study_config import StudyConfig
from nano_llama.studies.study_model import StudyLlama
from nano_llama.vol1_numpy import Llama, gradcheck_model, trace


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.integers(0, 101, (3, 6)), rng.integers(0, 101, (3, 6))


def test_the_default_is_a_llama(tiny_config, batch):
    config = tiny_config("gqa")
    loss, grads = Llama.init(config, 1, np.float64).loss_and_grads(*batch)
    study_loss, study_grads = StudyLlama.init(config, 1, np.float64).loss_and_grads(*batch)
    assert study_loss == pytest.approx(loss, rel=1e-13)
    for name, grad in grads.items():
        np.testing.assert_allclose(study_grads[name], grad, atol=1e-14)


VARIANTS = [*itertools.product(["rmsnorm", "layernorm", "none"], ["pre", "post"], [True, False], [True, False])]


@pytest.mark.parametrize(("norm", "position", "scale", "residual"), VARIANTS)
def test_every_variant_has_right_gradients(tiny_config, batch, norm, position, scale, residual):
    study = StudyConfig(norm=norm, norm_position=position, attention_scale=scale, residual=residual)
    config = tiny_config("gqa", hidden_size=16, intermediate_size=20, num_attention_heads=4)
    model = StudyLlama.init(config, 1, np.float64, study=study, threads=1)
    assert any(name.endswith("layernorm.bias") for name in model.params) == (norm == "layernorm")
    gradcheck_model(model, *batch, samples=3)


def test_post_ln_is_the_papers_formula(tiny_config, batch):
    """x1 = LN(x + attention(x)), x2 = LN(x1 + mlp(x1)): every layer leaves mean 0 and variance 1."""
    model = StudyLlama.init(tiny_config(), 1, np.float64, study=StudyConfig(norm="layernorm", norm_position="post"))
    assert "model.norm.weight" not in model.params
    found = trace(model, batch[0])
    for i in range(2):
        np.testing.assert_allclose(found[f"model.layers.{i}"].mean(-1), 0, atol=1e-12)
        np.testing.assert_allclose(found[f"model.layers.{i}"].var(-1), 1, rtol=1e-2)


def test_without_the_scale_scores_are_sqrt_k_larger(tiny_config, batch):
    config = tiny_config("mha")
    study = StudyLlama.init(config, 1, np.float64, study=StudyConfig(attention_scale=False))
    scaled = Llama(config, dict(study.params))
    for i in range(2):  # the same effect from larger queries
        scaled.params[f"model.layers.{i}.self_attn.q_proj.weight"] = (
            study.params[f"model.layers.{i}.self_attn.q_proj.weight"] * config.head_dim**0.5
        )
    np.testing.assert_allclose(study.forward(batch[0]), scaled.forward(batch[0]), atol=1e-12)


def test_without_residual_a_layer_returns_its_mlp_alone(tiny_config, batch):
    model = StudyLlama.init(tiny_config(), 1, study=StudyConfig(residual=False))
    found = trace(model, batch[0], ["model.layers.0", "model.layers.0.mlp.down_proj"])
    np.testing.assert_array_equal(found["model.layers.0"], found["model.layers.0.mlp.down_proj"])


def test_wrong_choices_and_saving_are_refused(tiny_config, tmp_path):
    with pytest.raises(ConfigError, match="batchnorm"):
        StudyConfig(norm="batchnorm")
    with pytest.raises(ConfigError, match="middle"):
        StudyConfig(norm_position="middle")
    with pytest.raises(UserError, match="not a LLaMA"):
        StudyLlama.init(tiny_config()).save(tmp_path / "model")
