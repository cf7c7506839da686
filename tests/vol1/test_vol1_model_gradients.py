"""Every parameter's gradient of the whole model: central differences, and autograd of an independent model."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.op_references import llama_reference, relative_error
from nano_llama.core.config import LlamaConfig
from nano_llama.core.rope import rope_tables
from nano_llama.vol1_numpy import GradientMismatch, Llama, gradcheck_model
from nano_llama.vol1_numpy.masks import causal_mask, document_mask, padding_mask
from nano_llama.vol1_numpy.ops.registry import FAST, PLAIN, OpPair


def random_case(seed):
    """A model and a batch of random shape: MHA, GQA, MQA, tied or not, odd widths, B = 1, T = 1, masks, -100."""
    rng = np.random.default_rng(seed)
    G, R, K = (int(rng.choice(choices)) for choices in ((1, 2, 3), (1, 2, 3), (2, 4, 6)))
    config = LlamaConfig(
        vocab_size=int(rng.choice([13, 40])),
        hidden_size=int(rng.choice([5, 12, 21])),
        intermediate_size=int(rng.choice([3, 17])),
        num_hidden_layers=int(rng.choice([1, 2, 3])),
        num_attention_heads=G * R,
        num_key_value_heads=G,
        head_dim=K,
        max_position_embeddings=16,
        tie_word_embeddings=bool(rng.integers(2)),
        initializer_range=float(rng.choice([0.2, 0.5])),
    )
    B, T = int(rng.choice([1, 2, 5])), int(rng.choice([1, 6, 9]))
    tokens = rng.integers(0, int(rng.choice([2, config.vocab_size])), (B, T))  # of two tokens: much repeated
    targets = rng.integers(0, config.vocab_size, (B, T))
    targets[rng.random((B, T)) < rng.choice([0, 0.4])] = -100
    mask = causal_mask(T)
    if rng.integers(2):
        mask = mask & padding_mask(np.arange(T) >= rng.integers(0, T, (B, 1)))  # padded on the left
    if rng.integers(2):
        mask = mask & document_mask(np.sort(rng.integers(0, 3, (B, T)), axis=1))
    return config, tokens, targets, mask


def expected(torch, config, params, tokens, targets, mask):
    cos, sin = rope_tables(config, np.arange(tokens.shape[1]), np.float64)
    return llama_reference(torch, config, params, tokens, targets, cos, sin, mask)


@pytest.mark.parametrize("ops", [PLAIN, FAST], ids=["plain", "fast"])
@pytest.mark.parametrize("seed", range(16))
def test_autograd_agrees_tensor_by_tensor(seed, ops):
    torch = pytest.importorskip("torch")
    config, tokens, targets, mask = random_case(seed)
    model = Llama.init(config, seed, np.float64, ops=ops, threads=2)
    loss, grads = model.loss_and_grads(tokens, targets, mask=mask)
    their_loss, their_grads = expected(torch, config, model.params, tokens, targets, mask)
    assert loss == pytest.approx(their_loss, rel=1e-12)
    assert list(grads) == list(model.params)
    for name, grad in grads.items():
        assert relative_error(grad, their_grads[name]) < 1e-10, name


@pytest.mark.parametrize("seed", range(16))
def test_float32_within_1e_4(seed):
    torch = pytest.importorskip("torch")
    config, tokens, targets, mask = random_case(seed)
    model = Llama.init(config, seed, np.float32)
    loss, grads = model.loss_and_grads(tokens, targets, mask=mask)
    wide = {name: param.astype(np.float64) for name, param in model.params.items()}
    their_loss, their_grads = expected(torch, config, wide, tokens, targets, mask)
    assert loss == pytest.approx(their_loss, rel=1e-5)
    for name, grad in grads.items():
        assert grad.dtype == np.float32
        assert relative_error(grad, their_grads[name]) < 1e-4, name


@pytest.mark.parametrize("seed", range(8))
def test_central_differences_agree_in_every_parameter(seed):
    config, tokens, targets, mask = random_case(seed)
    model = Llama.init(config, seed, np.float64, threads=1)
    gradcheck_model(model, tokens, targets, mask=mask, z_loss=0.01, samples=4, seed=seed)


@pytest.mark.parametrize("name", [*FAST.__dataclass_fields__])
def test_a_mutated_backward_of_any_op_is_detected(name, tiny_config):
    """A thousandth too much in one op's first gradient: some parameter is named."""
    config = tiny_config("gqa")
    tokens, targets = np.random.default_rng(0).integers(0, config.vocab_size, (2, 2, 7))
    honest = getattr(FAST, name)

    def planted(dout, cache):
        grads = honest.backward(dout, cache)
        return (grads[0] * 1.001, *grads[1:]) if isinstance(grads, tuple) else grads * 1.001

    model = Llama.init(config, 3, np.float64, ops=replace(FAST, **{name: OpPair(honest.forward, planted)}))
    with pytest.raises(GradientMismatch, match="gradient of 'model"):
        gradcheck_model(model, tokens, targets, samples=2)


def test_large_logits_keep_their_gradients():
    torch = pytest.importorskip("torch")
    config, tokens, targets, mask = random_case(5)
    model = Llama.init(config, 5, np.float64)
    model.params["model.norm.weight"] *= 3000.0
    loss, grads = model.loss_and_grads(tokens, targets, mask=mask)
    their_loss, their_grads = expected(torch, config, model.params, tokens, targets, mask)
    assert loss > 100 and loss == pytest.approx(their_loss, rel=1e-12)
    for name, grad in grads.items():
        assert relative_error(grad, their_grads[name]) < 1e-10, name
