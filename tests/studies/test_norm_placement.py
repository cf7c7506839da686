"""The study's two models: their gradients, and the sizes that the fresh weights promise."""

import math

import numpy as np
import pytest

from nano_llama.core.config import LlamaConfig
from nano_llama.studies.norm_placement import PLACEMENTS, layer_gradients, make
from nano_llama.vol1_numpy import gradcheck_model

CONFIG = LlamaConfig(
    vocab_size=13,
    hidden_size=8,
    intermediate_size=12,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=6,
)


def fresh(placement, **changes):
    model = make(placement, CONFIG.replace(**changes), seed=0)
    model.params = {name: value.astype(np.float64) for name, value in model.params.items()}
    model.threads = 1
    return model


def batch():
    rng = np.random.default_rng(0)
    return rng.integers(0, 13, (2, 6)), rng.integers(0, 13, (2, 6))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_each_placement_has_its_own_gradient(placement):
    gradcheck_model(fresh(placement), *batch(), samples=2, tolerance=1e-6)


def test_fresh_matrices_keep_the_size_of_their_input_at_any_depth():
    for layers in (2, 8):
        model = make("Pre-LN", CONFIG.replace(hidden_size=64, intermediate_size=96, num_hidden_layers=layers), seed=0)
        for part in ("self_attn.o_proj", "mlp.down_proj", "mlp.gate_proj"):
            matrix = model.params[f"model.layers.1.{part}.weight"]
            assert matrix.std() == pytest.approx(1 / math.sqrt(matrix.shape[1]), rel=0.05), part
        assert model.params["model.embed_tokens.weight"].std() == pytest.approx(1, rel=0.1)


def test_layer_gradients_are_norms_over_the_mlp():
    model = fresh("Post-LN")
    _, grads = model.loss_and_grads(*batch())
    stacked = np.concatenate([g.ravel() for name, g in grads.items() if name.startswith("model.layers.1.mlp.")])
    assert layer_gradients(model, *batch())[1] == pytest.approx(float(np.linalg.norm(stacked)), rel=1e-12)
