"""The study's changed models have the gradients of what they compute, and differ from LLaMA in the one thing named."""

import numpy as np
import pytest

from nano_llama.core.config import LlamaConfig
from nano_llama.studies.ingredients import gain_backward, gain_forward, make, variants
from nano_llama.vol1_numpy import gradcheck, gradcheck_model

CONFIG = LlamaConfig(
    vocab_size=13,
    hidden_size=8,
    intermediate_size=12,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=6,
)


def batch():
    rng = np.random.default_rng(0)
    return rng.integers(0, 13, (2, 6)), rng.integers(0, 13, (2, 6))


@pytest.mark.parametrize("name", variants(4))
def test_every_variant_has_its_own_gradient(name):
    model = make(variants(4)[name], CONFIG, seed=0)
    model.params = {key: value.astype(np.float64) for key, value in model.params.items()}
    model.threads = 1
    gradcheck_model(model, *batch(), samples=2, tolerance=1e-6)


def test_a_gain_has_the_gradient_of_a_gain():
    rng = np.random.default_rng(0)
    inputs = {"x": rng.standard_normal((2, 3, 4)), "weight": rng.standard_normal(4), "eps": 0.1}
    gradcheck(gain_forward, gain_backward, inputs, wrt=["x", "weight"])


def test_without_residuals_the_stream_forgets_its_token():
    """With the layers' outputs zero, a residual stream still holds the embedding; without, nothing."""
    model = make(variants(4)["without residuals"], CONFIG, seed=0)
    for name, param in model.params.items():
        if "down_proj" in name:
            param[:] = 0
    assert np.abs(model.forward(batch()[0])).max() == 0
    complete = make(variants(4)["complete"], CONFIG, seed=0)
    assert np.abs(complete.forward(batch()[0])).max() > 0


def test_variants_start_from_the_same_draws():
    table = variants(4)
    complete, larger = (make(table[name], CONFIG, seed=3) for name in ("complete", "weights 4 x larger"))
    name = "model.layers.1.mlp.up_proj.weight"
    np.testing.assert_allclose(larger.params[name], 4 * complete.params[name], rtol=1e-6)
