"""Traces: every name, its shape, and that the traced values are those of the forward pass."""

import numpy as np
import pytest

from nano_llama.core.errors import UserError
from nano_llama.core.names import trace_names
from nano_llama.vol1_numpy import Llama, trace


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def model(tiny_config, request):
    return Llama.init(tiny_config("gqa", tied=request.param), seed=3, dtype=np.float64)


@pytest.fixture
def tokens():
    return np.random.default_rng(0).integers(0, 101, (2, 7))


def test_every_name_is_there_in_order_with_its_shape(model, tokens):
    found = trace(model, tokens)
    assert list(found) == trace_names(model.config)
    c = model.config
    H, G, K, F = c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.intermediate_size
    widths = {"q_proj": H * K, "k_proj": G * K, "v_proj": G * K, "gate_proj": F, "up_proj": F, "lm_head": 101}
    for name, value in found.items():
        last = name.split(".")[-1]
        expected = (2, H, 7, 7) if last == "weights" else (2, 7, widths.get(last, c.hidden_size))
        assert value.shape == expected, name


def test_traced_values_are_those_of_the_forward_pass(model, tokens):
    found = trace(model, tokens)
    np.testing.assert_allclose(found["lm_head"], model.forward(tokens), atol=1e-12)
    x = found["model.embed_tokens"]
    np.testing.assert_array_equal(x, model.params["model.embed_tokens.weight"][tokens])
    for i in range(2):  # the stream is the sum of everything written into it
        x = x + found[f"model.layers.{i}.self_attn.o_proj"] + found[f"model.layers.{i}.mlp.down_proj"]
        np.testing.assert_allclose(found[f"model.layers.{i}"], x, atol=1e-12)
        weights = found[f"model.layers.{i}.self_attn.weights"]
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-12)
        assert not np.triu(weights, 1).any()
    h = found["model.layers.1.input_layernorm"] @ model.params["model.layers.1.self_attn.v_proj.weight"].T
    np.testing.assert_allclose(found["model.layers.1.self_attn.v_proj"], h, atol=1e-12)


def test_traces_equal_volume_2s(model, tokens):
    torch = pytest.importorskip("torch")
    from nano_llama.vol2_torch import Llama as Torch
    from nano_llama.vol2_torch.traces import Trace

    theirs = Torch.init(model.config, seed=3, dtype=torch.float64)
    with torch.no_grad(), Trace(theirs) as expected:
        theirs(torch.from_numpy(tokens))
    for name, value in trace(model, tokens).items():
        np.testing.assert_allclose(value, expected[name].numpy(), atol=1e-9, err_msg=name)


def test_only_named_values_are_traced_and_the_model_is_unchanged(model, tokens):
    ops = model.ops
    assert list(trace(model, tokens, ["model.norm", "model.layers.0"])) == ["model.layers.0", "model.norm"]
    assert model.ops is ops and "layer_forward" not in vars(model)
    with pytest.raises(UserError, match=r"model\.layers\.9"):
        trace(model, tokens, ["model.layers.9"])
