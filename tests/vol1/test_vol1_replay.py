"""The replay (vol1_numpy/replay.py) against the model and its traces."""

import numpy as np
import pytest

from nano_llama.core.config import LlamaConfig
from nano_llama.vol1_numpy import Llama
from nano_llama.vol1_numpy.replay import Replay
from nano_llama.vol1_numpy.traces import trace

TOKENS = np.array([5, 1, 60, 7, 7, 33, 2, 90])


@pytest.fixture(scope="module", params=[(True, 2), (False, 1), (False, 4)], ids=["tied GQA", "MQA", "MHA"])
def model(request) -> Llama:
    tied, groups = request.param
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=groups, max_position_embeddings=64, tie_word_embeddings=tied, initializer_range=0.3,
    )  # fmt: skip
    return Llama.init(config, seed=4)


def test_each_layer_is_the_model_s(model):
    replay = Replay(model.params, model.config)
    traced = trace(model, TOKENS[None])
    np.testing.assert_allclose(replay.embed(TOKENS), traced["model.embed_tokens"][0])
    for layer in replay.layers(TOKENS):
        name = f"model.layers.{layer.index}"
        for value, of in (
            (layer.stream, name),
            (layer.attention, f"{name}.self_attn.o_proj"),
            (layer.weights, f"{name}.self_attn.weights"),
            (layer.mlp, f"{name}.mlp.down_proj"),
        ):
            np.testing.assert_allclose(value, traced[of][0], rtol=1e-5, atol=1e-5, err_msg=of)
    np.testing.assert_allclose(replay.logits(layer.stream), model.forward(TOKENS[None])[0], rtol=1e-4, atol=1e-4)


def test_the_parts_add_up_to_the_logit(model):
    replay = Replay(model.params, model.config)
    parts = [replay.embed(TOKENS)[-1]]
    for layer in replay.layers(TOKENS):
        parts += [layer.attention[-1], layer.mlp[-1]]
    logits = model.forward(TOKENS[None])[0, -1]
    for token in (0, 5, 96):
        shares = replay.contributions(np.array(parts), layer.stream[-1], token)
        assert shares.sum() == pytest.approx(logits[token], abs=1e-4)
        assert np.abs(shares).min() > 0, "each part has a share of its own"
