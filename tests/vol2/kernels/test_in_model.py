"""A model whose layers compute with kernels has the losses and gradients of the plain one."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.kernels import relative_error
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol2_torch import Llama
from nano_llama.vol2_torch.generate import generate
from nano_llama.vol2_torch.loss import head_loss, loss_sum

pytestmark = pytest.mark.triton
ATTENTION, FUSED = {"flash_attention"}, {"rmsnorm", "rope", "swiglu", "cross_entropy"}


@pytest.fixture
def models(interpreter, tiny_config):
    """models(names): the plain model, and one with the same weights and these kernels; heads are grouped."""
    from nano_llama.vol2_torch.kernels.in_model import use_kernels

    def make(names):
        config = tiny_config(hidden_size=32, num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=1)
        plain, other = Llama.init(config), Llama.init(config)
        use_kernels(other, names, torch.float32)
        return plain, other

    return make


def forms(names):
    from nano_llama.vol2_torch.kernels.cross_entropy import head_loss_by_kernel

    return head_loss, head_loss_by_kernel if "cross_entropy" in names else head_loss


def batch(model):
    generator = torch.Generator().manual_seed(1)
    tokens, targets = torch.randint(0, model.config.vocab_size, (2, 2, 13), generator=generator)
    targets[torch.rand(targets.shape, generator=generator) < 0.3] = -100
    documents = torch.tensor([[4] * 5 + [7] * 8, [1, 2, 3] + [5] * 6 + [-1] * 4])  # the last: padding
    return tokens, targets, documents


def same_losses_and_gradients(pair, names, packed=True):
    losses, gradients = [], []
    for model, form in zip(pair, forms(names), strict=True):
        tokens, targets, documents = batch(model)
        torch.manual_seed(0)  # of dropout
        loss = loss_sum(model, tokens, targets, form, 1e-3, documents if packed else None)
        loss.backward()
        losses.append(loss.item())
        gradients.append({name: parameter.grad for name, parameter in model.named_params().items()})
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for name, wanted in gradients[0].items():
        assert relative_error(gradients[1][name], wanted) < 1e-4, name


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("names", [ATTENTION, FUSED], ids=["attention", "fused"])
def test_losses_and_gradients(models, names, packed):
    same_losses_and_gradients(models(names), names, packed)


@pytest.mark.parametrize("checkpointing", ["selective", "full"])
def test_what_is_recomputed_and_dropped_is_the_same(models, checkpointing):
    pair = models(ATTENTION | FUSED)
    for model in pair:
        model.train_with(0.1, checkpointing)
    same_losses_and_gradients(pair, ATTENTION | FUSED)


class Calls(TorchDispatchMode):
    """Counts the operators of ours that are called inside."""

    def __init__(self):
        super().__init__()
        self.of = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        namespace, _, name = function.name().partition("::")
        if namespace == "nano_llama":
            self.of[name] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("checkpointing, attended", [("none", 1), ("selective", 1), ("full", 2)])
def test_selective_checkpointing_keeps_what_attention_computed(models, checkpointing, attended):
    _, model = models(ATTENTION | FUSED)
    model.train_with(0.0, checkpointing)
    with Calls() as calls:
        loss_sum(model, *batch(model)[:2]).backward()
    assert calls.of["flash_attention"] == attended and calls.of["flash_attention_backward"] == 1
    assert calls.of["rope"] == (2 if checkpointing == "none" else 3)  # there, again, and back


def test_a_compiled_layer_stays_whole(models):
    """Each kernel is one operator of the graph: fullgraph refuses anything that would break it."""
    pair = models(ATTENTION | FUSED)
    for layer in pair[1].model.layers:
        layer.compile(backend="aot_eager", fullgraph=True, dynamic=False)
    same_losses_and_gradients(pair, ATTENTION | FUSED)


def test_generation_with_a_cache(models):
    params = SamplingParams(temperature=0.0, max_tokens=6, seed=0)
    plain, other = (list(generate(model, [1, 2, 3, 4], params)) for model in models(ATTENTION | FUSED))
    assert other == plain


def test_a_mask_of_ones_own_is_attended_with_by_torch(models):
    """Padding on the left, say: no kernel takes it."""
    plain, other = models(ATTENTION)
    tokens = batch(plain)[0]
    mask = torch.ones(2, 1, 13, 13, dtype=torch.bool).tril()
    mask[1, :, :, :4] = torch.eye(13, dtype=torch.bool)[:, :4]
    with Calls() as calls:
        found = other(tokens, mask=mask)
    assert relative_error(found, plain(tokens, mask=mask)) < 1e-5 and not calls.of
