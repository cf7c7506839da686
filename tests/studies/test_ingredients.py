"""The study's variants have right gradients, differ from LLaMA in one thing, and start from the same draws."""

import numpy as np
import pytest

from nano_llama.core.config import LlamaConfig
from nano_llama.studies.ingredients import VARIANTS
from nano_llama.vol1_numpy import Llama, gradcheck_model

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


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_its_own_gradient(name):
    model = VARIANTS[name].make(CONFIG, seed=0)
    model.params = {key: value.astype(np.float64) for key, value in model.params.items()}
    model.threads = 1
    gradcheck_model(model, *batch(), samples=2, tolerance=1e-6)


def test_the_complete_variant_is_a_llama_and_the_others_are_not():
    logits = {name: variant.make(CONFIG, seed=3).forward(batch()[0]) for name, variant in VARIANTS.items()}
    complete = VARIANTS["complete"].make(CONFIG, seed=3)
    np.testing.assert_allclose(logits["complete"], Llama(CONFIG, complete.params).forward(batch()[0]), atol=1e-6)
    for name in logits.keys() - {"complete"}:
        assert np.abs(logits[name] - logits["complete"]).max() > 1e-2, name


def test_without_residuals_the_stream_loses_its_token():
    """With the layers' outputs zero, a residual stream still holds the embedding; without, nothing."""
    for name, silent in (("without residuals", True), ("complete", False)):
        model = VARIANTS[name].make(CONFIG, seed=0)
        for key, param in model.params.items():
            if "down_proj" in key:
                param[:] = 0
        assert (np.abs(model.forward(batch()[0])).max() == 0) == silent, name


def test_variants_start_from_the_same_draws():
    complete, larger = (VARIANTS[name].make(CONFIG, seed=3) for name in ("complete", "weights 4 x larger"))
    name = "model.layers.1.mlp.up_proj.weight"
    np.testing.assert_allclose(larger.params[name], 4 * complete.params[name], rtol=1e-6)
