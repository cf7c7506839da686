"""Traces: every name records what transformers' own hidden states and attentions say; nothing else changes."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nano_llama.core.errors import UserError  # noqa: E402
from nano_llama.core.names import trace_names  # noqa: E402
from nano_llama.vol2_torch import Llama  # noqa: E402
from nano_llama.vol2_torch.traces import Trace  # noqa: E402


@pytest.fixture
def model(tiny_config):
    return Llama.init(tiny_config("gqa"), seed=3)


@pytest.fixture
def text(model):
    return torch.from_numpy(np.random.default_rng(0).integers(0, model.config.vocab_size, (2, 12)))


def test_all_names_are_recorded_with_their_shapes_and_the_logits_stay(model, text):
    plain = model(text)
    with Trace(model) as trace:
        logits = model(text)
    assert list(trace) == trace_names(model.config)
    assert torch.equal(logits, plain) and torch.equal(trace["lm_head"], logits)
    c, (B, T) = model.config, text.shape
    widths = {"q_proj": c.num_attention_heads * c.head_dim, "k_proj": c.num_key_value_heads * c.head_dim,
              "gate_proj": c.intermediate_size, "lm_head": c.vocab_size, "o_proj": c.hidden_size}  # fmt: skip
    for name, tensor in trace.items():
        last = name.split(".")[-1]
        if last == "weights":
            assert tensor.shape == (B, c.num_attention_heads, T, T)
            torch.testing.assert_close(tensor.sum(-1), torch.ones(B, c.num_attention_heads, T))
            assert (tensor.triu(1) == 0).all()
        elif last in widths:
            assert tensor.shape == (B, T, widths[last]), name


def test_hidden_states_and_attentions_are_transformers_own(model, text):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(**model.config.to_hf_dict(), attn_implementation="eager")
    theirs = transformers.LlamaForCausalLM(config).eval()
    theirs.load_state_dict(model.state_dict())
    with torch.no_grad():
        reference = theirs(text, output_hidden_states=True, output_attentions=True)
        with Trace(model) as trace:
            model(text)
    torch.testing.assert_close(trace["model.embed_tokens"], reference.hidden_states[0])
    torch.testing.assert_close(trace["model.layers.0"], reference.hidden_states[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(trace["model.norm"], reference.hidden_states[2], rtol=1e-4, atol=1e-5)
    for layer, weights in enumerate(reference.attentions):
        torch.testing.assert_close(trace[f"model.layers.{layer}.self_attn.weights"], weights, rtol=1e-4, atol=1e-5)


def test_hooks_are_removed_after_the_block_and_unknown_names_are_refused(model, text):
    with Trace(model, ["model.layers.1"]) as trace:
        model(text)
    before = trace["model.layers.1"]
    model(text.flip(0))
    assert trace["model.layers.1"] is before and len(trace) == 1
    with pytest.raises(UserError, match=r"model\.layers\.7"):
        Trace(model, ["model.layers.7"])
