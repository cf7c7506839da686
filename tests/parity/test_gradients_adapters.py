"""An adapter in Volume 1 against Volume 2: its gradients against autograd, tensor by tensor, and the same logits."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helpers.adapters import random_adapter  # noqa: E402
from helpers.op_references import relative_error  # noqa: E402
from nano_llama.core.lora import LAYER_TARGETS, TARGETS, LoraConfig  # noqa: E402
from nano_llama.vol1_numpy import Llama  # noqa: E402
from nano_llama.vol1_numpy.finetune import load_adapter, save_adapter, with_adapter  # noqa: E402
from nano_llama.vol2_torch import Llama as TorchLlama  # noqa: E402
from nano_llama.vol2_torch import finetune as torch_finetune  # noqa: E402

KINDS = {"lora": {}, "rslora": {"rslora": True}, "dora": {"dora": True}}


def both(config, lora, folder):
    """The same model with the same adapter in both volumes, in float64; it passes through a file."""
    base = Llama.init(config, seed=1, dtype=np.float64)
    ours = with_adapter(base, lora, random_adapter(lora, config, base.params, dtype=np.float64))
    save_adapter(ours, folder)
    return ours, torch_finetune.load_adapter(TorchLlama.init(config, seed=1, dtype=torch.float64), folder)


def draw(seed=0):
    rng = np.random.default_rng(seed)
    tokens, targets = rng.integers(0, 101, (4, 9)), rng.integers(0, 101, (4, 9))
    targets[rng.random(targets.shape) < 0.5] = -100
    return tokens, targets


def autograd(model, tokens, targets):
    parameters = torch_finetune.adapter_params(model)
    logits = model(torch.from_numpy(tokens))  # (B,T,V)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten())
    grads = torch.autograd.grad(loss, list(parameters.values()))
    return loss.item(), {name: grad.numpy() for name, grad in zip(parameters, grads, strict=True)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("attention", "tied", "targets"),
    [
        ("gqa", False, TARGETS),
        ("gqa", True, TARGETS),
        ("mha", True, LAYER_TARGETS),
        ("mqa", False, ("q_proj", "up_proj")),
    ],
)
def test_gradients_agree_tensor_by_tensor(tiny_config, tmp_path, kind, attention, tied, targets):
    lora = LoraConfig(r=3, alpha=5, target_modules=targets, **KINDS[kind])
    ours, theirs = both(tiny_config(attention, tied=tied), lora, tmp_path)
    tokens, batch_targets = draw()
    loss, grads = ours.loss_and_grads(tokens, batch_targets)
    their_loss, their_grads = autograd(theirs, tokens, batch_targets)
    assert loss == pytest.approx(their_loss, rel=1e-12)
    assert list(grads) == list(their_grads) == list(ours.adapter)
    for name, grad in grads.items():
        assert relative_error(grad, their_grads[name]) < 1e-10, name


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_volume_2_has_the_same_logits_here(tiny_config, tmp_path, kind):
    config = tiny_config("gqa", tied=True)
    base, lora = Llama.init(config, seed=1, dtype=np.float64), LoraConfig(r=2, target_modules=TARGETS, **KINDS[kind])
    theirs = torch_finetune.apply_lora(TorchLlama.init(config, seed=1, dtype=torch.float64), lora, seed=3)
    parameters = torch_finetune.adapter_params(theirs)
    tensors = random_adapter(lora, config, base.params, seed=4)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(tensors[name]))
    torch_finetune.save_adapter(theirs, tmp_path)
    tokens, _ = draw()
    logits = load_adapter(base, tmp_path).forward(tokens)
    assert relative_error(logits, theirs(torch.from_numpy(tokens)).detach().numpy()) < 1e-10
