"""The loss over batches, ignored targets left out."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nano_llama.core.errors import UserError  # noqa: E402
from nano_llama.vol2_torch import Llama, loss  # noqa: E402
from nano_llama.vol2_torch.loss import loss_sum  # noqa: E402
from nano_llama.vol2_torch.precision import Precision  # noqa: E402


@pytest.fixture
def model(tiny_config):
    return Llama.init(tiny_config())


@pytest.fixture
def batch(model):
    generator = torch.Generator().manual_seed(1)
    tokens, targets = torch.randint(0, model.config.vocab_size, (2, 3, 10), generator=generator)
    targets[torch.rand(targets.shape, generator=generator) < 0.3] = -100
    return tokens, targets


def test_loss_sums_over_counted_targets(model, batch):
    tokens, targets = batch
    wanted = sum(
        -torch.log_softmax(model(tokens)[b, t], -1)[targets[b, t]].item()
        for b in range(3)
        for t in range(10)
        if targets[b, t] != -100
    )
    assert loss_sum(model, tokens, targets).item() == pytest.approx(wanted, rel=1e-5)
    assert loss_sum(model, tokens, torch.full_like(targets, -100)).item() == 0


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_chunked_loss_and_gradient_equal_the_whole(monkeypatch, z_loss, precision):
    generator = torch.Generator().manual_seed(2)
    hidden, weight = torch.randn(50, 16, generator=generator), torch.randn(30, 16, generator=generator)
    targets = torch.randint(0, 30, (50,), generator=generator)
    targets[::7] = -100
    monkeypatch.setattr(loss, "CHUNK_BYTES", 4 * 30 * 12)  # parts of 12 rows, the last of 2
    found = []
    for function in (loss.head_loss, loss.chunked_head_loss):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        with Precision(precision, "cpu").autocast():
            value = function(h, w, targets, z_loss)
        (3.0 * value).backward()
        with torch.no_grad(), Precision(precision, "cpu").autocast():
            assert function(hidden, weight, targets, z_loss).item() == pytest.approx(value.item(), rel=1e-5)
        found.append((value.detach(), h.grad, w.grad))
    bound = 1e-5 if precision == "fp32" else 0.02
    for plain, lean in zip(*found, strict=True):
        assert (plain - lean).abs().max() <= bound * plain.abs().max()


@pytest.mark.parametrize("function", ["head_loss", "chunked_head_loss", "fitting_head_loss"])
@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("counted", [0, 1, 17])
def test_loss_at_counted_positions_equals_the_loss_over_all(monkeypatch, function, z_loss, counted):
    generator = torch.Generator().manual_seed(2)
    hidden, weight = torch.randn(50, 16, generator=generator), torch.randn(30, 16, generator=generator)
    targets = torch.full((50,), -100)
    targets[torch.randperm(50, generator=generator)[:counted]] = torch.randint(0, 30, (counted,), generator=generator)
    monkeypatch.setattr(loss, "CHUNK_BYTES", 4 * 30 * 12)  # parts of 12 rows, the last of 5
    found, rows = [], []
    given = getattr(loss, function)

    def watched(h, w, t, z):
        rows.append(len(h))
        return given(h, w, t, z)

    for form in (loss.head_loss, loss.at_counted_positions(watched)):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        value = form(h, w, targets, z_loss)
        value.backward()
        found.append((value.detach(), h.grad, w.grad))
    assert rows == [counted]
    for everywhere, there in zip(*found, strict=True):
        assert (everywhere - there).abs().max() <= 1e-5 * everywhere.abs().max()


@pytest.mark.parametrize("function", [loss.chunked_head_loss, loss.fitting_head_loss])
def test_a_frozen_head_has_no_gradient_and_is_not_kept(function):
    generator = torch.Generator().manual_seed(3)
    hidden, weight = torch.randn(9, 4, generator=generator), torch.randn(30, 4, generator=generator)
    targets, kept = torch.arange(9), []
    found = []
    for form in (loss.head_loss, function):
        h = hidden.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
            value = form(h, weight, targets, 0.01)
        if form is function:
            assert kept == [(9, 4)]  # its own gradient, and nothing of the head's size
        kept.clear()
        value.backward()
        found.append((value.detach(), h.grad))
    for plain, frozen in zip(*found, strict=True):
        torch.testing.assert_close(frozen, plain, rtol=1e-5, atol=1e-6)


def test_only_what_fits_is_made_at_once(monkeypatch):
    def called(name):
        return lambda *inputs: name

    monkeypatch.setattr(loss, "chunked_head_loss", called("chunked"))
    monkeypatch.setattr(loss, "head_loss", called("whole"))
    monkeypatch.setattr(loss, "CHUNK_BYTES", 4 * 30 * 12)
    weight, targets = torch.zeros(30, 4, requires_grad=True), torch.zeros(13, dtype=torch.long)
    assert loss.fitting_head_loss(torch.zeros(12, 4), weight, targets[:12]) == "whole"
    assert loss.fitting_head_loss(torch.zeros(13, 4), weight, targets) == "chunked"
    assert loss.fitting_head_loss(torch.zeros(2, 4), weight.detach(), targets[:2]) == "chunked"


def test_z_loss_is_volume_1s(model, batch):
    from nano_llama.vol1_numpy import Llama as HandWritten

    tokens, targets = batch
    counted = int((targets != -100).sum())
    value = loss_sum(model, tokens, targets, z_loss=0.1) / counted
    value.backward()
    params = {name: parameter.detach().numpy() for name, parameter in model.named_params().items()}
    theirs, grads = HandWritten(model.config, params).loss_and_grads(tokens.numpy(), targets.numpy(), z_loss=0.1)
    assert value.item() == pytest.approx(theirs, rel=1e-5)
    for name, parameter in model.named_params().items():
        difference = np.abs(parameter.grad.numpy() - grads[name]).max()
        assert difference < 1e-4 * np.abs(grads[name]).max() + 1e-7, name


def test_only_large_logits_are_chunked():
    assert not loss.wants_chunks(2048, 4096) and loss.wants_chunks(16384, 49152)


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_cross_entropy_is_volume_1s(z_loss):
    from nano_llama.vol1_numpy import ops

    rng = np.random.default_rng(0)
    logits, targets = rng.standard_normal((2, 5, 7)), rng.integers(0, 7, (2, 5))
    targets[0, 2] = -100
    ours = torch.tensor(logits, requires_grad=True)
    value = loss.cross_entropy(ours, torch.tensor(targets), z_loss=z_loss)
    value.backward()
    expected, cache = ops.cross_entropy_forward(logits, targets, z_loss=z_loss)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(ours.grad.numpy(), ops.cross_entropy_backward(1.0, cache), rtol=1e-10, atol=1e-15)
    nothing = loss.cross_entropy(ours, torch.full((2, 5), -100), z_loss=z_loss)
    assert nothing.item() == 0 and not torch.autograd.grad(nothing, ours)[0].any()
    with pytest.raises(UserError, match=r"\(2, 4\)"):
        loss.cross_entropy(ours, torch.zeros(2, 4, dtype=torch.long))
