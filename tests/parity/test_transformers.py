"""Volume 2 against transformers' LlamaForCausalLM: tiny random models of every kind, in memory.

The same through files written by either side: tests/formats/test_hf_folder.py.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from nano_llama.vol2_torch import Llama  # noqa: E402


def theirs_with_our_weights(model):
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**model.config.to_hf_dict())).eval()
    left = theirs.load_state_dict(model.state_dict(), strict=False)
    assert not left.unexpected_keys and set(left.missing_keys) <= {"lm_head.weight"}
    return theirs


def relative_error(a, b):
    return ((a - b).abs().max() / b.abs().max().clamp(min=1e-12)).item()


@pytest.mark.parametrize("attention", ["mha", "gqa", "mqa"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rope", ["default", "linear", "dynamic", "yarn", "llama3"])
def test_logits_agree_beyond_the_original_context(tiny_config, attention, tied, rope):
    model = Llama.init(tiny_config(attention, tied=tied, rope=rope), seed=1)
    text = torch.from_numpy(np.random.default_rng(0).integers(0, model.config.vocab_size, (2, 150)))
    with torch.no_grad():
        assert relative_error(model(text), theirs_with_our_weights(model)(text).logits) < 1e-5


@pytest.mark.parametrize("tied", [False, True])
def test_gradients_agree_per_tensor(tiny_config, tied):
    model = Llama.init(tiny_config(tied=tied), seed=2)
    theirs = theirs_with_our_weights(model)
    text = torch.from_numpy(np.random.default_rng(1).integers(0, model.config.vocab_size, (2, 33)))
    for logits in (model(text), theirs(text).logits):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), text[:, 1:].flatten()).backward()
    their_gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in model.named_params().items():
        assert relative_error(parameter.grad, their_gradients[name]) < 1e-4, name
