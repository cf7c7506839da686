"""The loss is the mean over all targets that count, however the batch is cut; so is its gradient."""

import numpy as np

from nano_llama import LlamaConfig
from nano_llama.vol1_numpy.model import Llama

LENGTHS = (10, 1, 4, 0)  # of the rows' counted targets
CUTS = ((4, 1), (1, 1), (2, 1), (3, 1), (None, 2), (1, 2), (None, 4))  # micro_batch, threads


def model_and_batch():
    config = LlamaConfig(
        vocab_size=29, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    rng = np.random.default_rng(6)
    tokens, targets = rng.integers(0, 29, (2, len(LENGTHS), 10))
    for row, length in zip(targets, LENGTHS, strict=True):
        row[length:] = -100
    return Llama.init(config, seed=1, dtype=np.float64, threads=1), tokens, targets


def mean_over_targets(model, tokens, targets):
    logits = model.forward(tokens)
    logp = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return -np.mean([logp[b, t, targets[b, t]] for b, t in np.argwhere(targets != -100)])


def test_the_loss_is_the_mean_over_counted_targets():
    model, tokens, targets = model_and_batch()
    expected = mean_over_targets(model, tokens, targets)
    for micro_batch, model.threads in CUTS:
        what = f"{micro_batch or 'all'} rows at once in {model.threads} threads"
        loss, _ = model.loss_and_grads(tokens, targets, micro_batch=micro_batch)
        assert abs(loss - expected) < 1e-9, f"{what}: the loss is {loss:.4f}, the mean over targets {expected:.4f}"
        assert abs(model.loss(tokens, targets) - expected) < 1e-9, f"{what}: the loss without gradients is wrong"


def test_the_gradient_is_that_of_the_mean():
    model, tokens, targets = model_and_batch()
    name, index, step = "model.norm.weight", 3, 1e-4
    ends = []
    for sign in (1, -1):
        model.params[name][index] += sign * step
        ends.append(mean_over_targets(model, tokens, targets))
        model.params[name][index] -= sign * step
    slope = (ends[0] - ends[1]) / (2 * step)
    _, whole = model.loss_and_grads(tokens, targets)
    assert abs(whole[name][index] - slope) < 1e-6, "one batch: the gradient is not the slope of the mean over targets"
    for micro_batch, model.threads in CUTS:
        _, grads = model.loss_and_grads(tokens, targets, micro_batch=micro_batch)
        for name in grads:
            assert np.allclose(grads[name], whole[name], rtol=1e-8, atol=1e-12), (
                f"{micro_batch or 'all'} rows at once in {model.threads} threads: another gradient of {name}"
            )
