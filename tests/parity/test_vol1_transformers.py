"""Volume 1's logits against transformers' LlamaForCausalLM on the same weights, read from the same folder."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from nano_llama.core.init import init_params  # noqa: E402
from nano_llama.formats import save_hf  # noqa: E402
from nano_llama.vol1_numpy import Llama  # noqa: E402
from nano_llama.vol1_numpy.masks import causal_mask, padding_mask  # noqa: E402


@pytest.fixture
def both(tmp_path, tiny_config):
    """(attention, tied, rope) -> Volume 1's model and transformers', from one folder."""

    def make(attention="gqa", tied=False, rope="default", **changes):
        config = tiny_config(attention, tied, rope, **changes)
        save_hf(tmp_path / "model", config, init_params(config, seed=4))
        theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
        return Llama.from_pretrained(tmp_path / "model"), theirs

    return make


def agree(ours, theirs):
    assert np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs)) < 1e-5


@torch.no_grad()
def logits(model, tokens, **options):
    return model(torch.from_numpy(tokens), **options).logits.numpy()


@pytest.mark.parametrize("rope", ["default", "linear", "dynamic", "yarn", "llama3"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("attention", ["mha", "gqa", "mqa"])
def test_logits_agree(both, attention, tied, rope):
    ours, theirs = both(attention, tied, rope)
    for B, T in ((1, 1), (3, 29)):
        tokens = np.random.default_rng(T).integers(0, 101, (B, T))
        agree(ours.forward(tokens), logits(theirs, tokens))


@pytest.mark.parametrize("rope", ["linear", "dynamic", "yarn", "llama3"])
def test_logits_agree_beyond_the_trained_context(both, rope):
    ours, theirs = both(rope=rope)
    tokens = np.random.default_rng(1).integers(0, 101, (2, 90))  # of 64
    agree(ours.forward(tokens), logits(theirs, tokens))


def test_padding_on_the_right_agrees(both):
    ours, theirs = both()
    tokens = np.random.default_rng(2).integers(0, 101, (2, 10))
    present = np.ones((2, 10), bool)
    present[1, 6:] = False
    mine = ours.forward(tokens, mask=causal_mask(10) & padding_mask(present))
    agree(mine[present], logits(theirs, tokens, attention_mask=torch.from_numpy(present).long())[present])


def test_gradients_agree_with_transformers_own(both):
    """Within 1e-4: transformers computes in float32."""
    ours, theirs = both("gqa", tied=True)
    rng = np.random.default_rng(3)
    tokens, targets = rng.integers(0, 101, (2, 2, 12))
    loss, grads = ours.loss_and_grads(tokens, targets)
    their_loss = torch.nn.functional.cross_entropy(
        theirs(torch.from_numpy(tokens)).logits.flatten(0, 1), torch.from_numpy(targets).flatten()
    )
    their_loss.backward()
    assert loss == pytest.approx(their_loss.item(), rel=1e-5)
    expected = dict(theirs.named_parameters())
    for name, grad in grads.items():
        reference = expected[name].grad.numpy()
        assert np.max(np.abs(grad - reference)) / np.max(np.abs(reference)) < 1e-4, name
