"""The loss over batches, ignored targets left out."""

import pytest

torch = pytest.importorskip("torch")

from nano_llama.vol2_torch import Llama  # noqa: E402
from nano_llama.vol2_torch.loss import loss_sum  # noqa: E402


@pytest.fixture
def model(tiny_config):
    return Llama.init(tiny_config())


@pytest.fixture
def batch(model):
    generator = torch.Generator().manual_seed(1)
    tokens, targets = torch.randint(0, model.config.vocab_size, (2, 3, 10), generator=generator)
    targets[torch.rand(targets.shape, generator=generator) < 0.3] = -100
    return tokens, targets


def test_it_is_the_sum_over_counted_targets(model, batch):
    tokens, targets = batch
    wanted = sum(
        -torch.log_softmax(model(tokens)[b, t], -1)[targets[b, t]].item()
        for b in range(3)
        for t in range(10)
        if targets[b, t] != -100
    )
    assert loss_sum(model, tokens, targets).item() == pytest.approx(wanted, rel=1e-5)
    assert loss_sum(model, tokens, torch.full_like(targets, -100)).item() == 0
