"""Other activations, windows and places of norms: every gradient, the cache, and what LLaMA's form alone can do."""

import numpy as np
import pytest

from helpers.op_references import llama_reference, relative_error
from nano_llama.core.errors import UserError
from nano_llama.core.rope import rope_tables
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol1_numpy import Llama, gradcheck_model
from nano_llama.vol1_numpy.generate import generate
from nano_llama.vol1_numpy.masks import causal_mask, document_mask
from nano_llama.vol1_numpy.ops.registry import FAST, PLAIN
from nano_llama.vol1_numpy.replay import Replay

VARIANTS = [
    {"hidden_act": "gelu_pytorch_tanh"},
    {"hidden_act": "relu"},
    {"hidden_act": "relu2", "sliding_window": 1},
    {"sliding_window": 4},
    {"norm_placement": "post"},
    {"norm_placement": "reordered"},
    {"hidden_act": "relu2", "sliding_window": 3, "norm_placement": "post"},
    {"hidden_act": "relu", "sliding_window": 5, "norm_placement": "reordered"},
]
variants = pytest.mark.parametrize("changes", VARIANTS, ids=lambda changes: ",".join(map(str, changes.values())))


@pytest.fixture
def case(tiny_config):
    """case(changes): a config, and a batch with documents and targets that do not count."""

    def make(changes):
        rng = np.random.default_rng(3)
        config = tiny_config(hidden_size=12, intermediate_size=17, head_dim=4, tied=True, **changes)
        tokens, targets = rng.integers(0, config.vocab_size, (2, 3, 9))
        targets[rng.random(targets.shape) < 0.2] = -100
        return config, tokens, targets, causal_mask(9) & document_mask(np.sort(rng.integers(0, 2, (3, 9)), axis=1))

    return make


@variants
@pytest.mark.parametrize("ops", [PLAIN, FAST], ids=["plain", "fast"])
def test_autograd_agrees_tensor_by_tensor(case, changes, ops):
    torch = pytest.importorskip("torch")
    config, tokens, targets, mask = case(changes)
    model = Llama.init(config, 0, np.float64, ops=ops, threads=2)
    cos, sin = rope_tables(config, np.arange(9), np.float64)
    for given in (None, mask):
        loss, grads = model.loss_and_grads(tokens, targets, mask=given)
        meant = causal_mask(9) if given is None else given
        their_loss, their_grads = llama_reference(torch, config, model.params, tokens, targets, cos, sin, meant)
        assert loss == pytest.approx(their_loss, rel=1e-12)
        for name, grad in grads.items():
            assert relative_error(grad, their_grads[name]) < 1e-10, name
    again, same = model.loss_and_grads(tokens, targets, mask=mask, recompute=True)
    assert again == loss and all(np.array_equal(same[name], grads[name]) for name in grads)


@variants
def test_finite_differences_agree(case, changes):
    config, tokens, targets, mask = case(changes)
    gradcheck_model(Llama.init(config, 1, np.float64, threads=1), tokens, targets, mask=mask, samples=3)


@variants
def test_a_cache_changes_no_token(case, changes):
    config, tokens, *_ = case(changes)
    model = Llama.init(config, 2)
    params = SamplingParams(temperature=1.0, seed=1, max_tokens=20)
    naive, cached = (list(generate(model, tokens[0, :6], params, use_cache=way)) for way in (False, True))
    assert naive == cached and len(set(naive)) > 5


def test_a_window_hides_what_lies_before_it(tiny_config):
    model = Llama.init(tiny_config(num_hidden_layers=1, sliding_window=3), 0, np.float64)
    tokens = np.arange(10)[None]
    changed = tokens.copy()
    changed[0, 4] = 50
    moved = np.abs(model.forward(tokens) - model.forward(changed))[0].max(-1) > 0
    assert list(np.flatnonzero(moved)) == [4, 5, 6]


@pytest.mark.parametrize("changes", [VARIANTS[0], *VARIANTS[3:5]], ids=str)
def test_a_replay_refuses_what_its_lines_do_not_compute(tiny_config, changes):
    model = Llama.init(tiny_config(**changes), 0)
    with pytest.raises(UserError, match=f"{next(iter(changes))} = .*a replay"):
        Replay(model.params, model.config)
