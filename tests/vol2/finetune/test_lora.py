"""Adapters on Volume 2's model: what is trained, what it computes, and that it can be undone or merged."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helpers.adapters import randomize  # noqa: E402
from nano_llama.core.errors import UserError  # noqa: E402
from nano_llama.core.lora import TARGETS, adapter_shapes  # noqa: E402
from nano_llama.vol1_numpy.ops import lora_linear_backward, lora_linear_forward  # noqa: E402
from nano_llama.vol2_torch import Llama  # noqa: E402
from nano_llama.vol2_torch.finetune import (  # noqa: E402
    LoraConfig,
    adapter_params,
    apply_lora,
    merge_lora,
    remove_lora,
    round_frozen,
)
from nano_llama.vol2_torch.finetune.adapters import adapted_layers  # noqa: E402
from nano_llama.vol2_torch.lora_linear import LoraLinear  # noqa: E402
from nano_llama.vol2_torch.loss import chunked_head_loss, head_loss, loss_sum  # noqa: E402
from nano_llama.vol2_torch.precision import Precision  # noqa: E402

KINDS = {"lora": {}, "rslora": {"rslora": True}, "dora": {"dora": True}}


def tokens(config, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, config.vocab_size, (2, 12)))


def relative_error(a, b):
    return ((a - b).abs().max() / b.abs().max().clamp(min=1e-12)).item()


@pytest.fixture(params=KINDS)
def lora(request):
    return LoraConfig(r=3, alpha=7, target_modules=TARGETS, **KINDS[request.param])


@pytest.mark.parametrize("tied", [False, True])
def test_fresh_adapters_change_nothing_and_only_they_are_trained(tiny_config, lora, tied):
    model = Llama.init(tiny_config(tied=tied), dtype=torch.float64)
    text = tokens(model.config)
    before, weights = model(text), {name: p.detach().clone() for name, p in model.named_params().items()}
    torch.testing.assert_close(apply_lora(model, lora)(text), before, rtol=1e-12, atol=1e-12)
    params = adapter_params(model)
    assert {name: tuple(p.shape) for name, p in params.items()} == adapter_shapes(lora, model.config)
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in params.values()}

    randomize(params)
    optimizer = torch.optim.SGD(params.values(), lr=0.1)
    moved = {name: p.detach().clone() for name, p in params.items()}
    loss_sum(model, text[:, :-1], text[:, 1:]).backward()
    optimizer.step()
    for name, p in params.items():
        assert not torch.equal(p, moved[name]), name
    for name, p in model.named_params().items():
        assert p.grad is None and torch.equal(p, weights[name]), name


def test_the_seed_decides_the_adapter(tiny_config):
    one, same, other = (
        adapter_params(apply_lora(Llama.init(tiny_config()), LoraConfig(), seed=seed)) for seed in (1, 1, 2)
    )
    name = "model.layers.1.mlp.down_proj.lora_A"
    assert torch.equal(one[name], same[name]) and not torch.equal(one[name], other[name])


def test_the_layer_and_its_gradients_are_volume_1s():
    rng = np.random.default_rng(3)
    x, W, A, B, dy = (rng.standard_normal(shape) for shape in ((2, 4, 5), (7, 5), (3, 5), (7, 3), (2, 4, 7)))
    lora = LoraConfig(r=3, alpha=5, rslora=True)
    layer = LoraLinear(torch.nn.Parameter(torch.tensor(W), requires_grad=False), lora)
    with torch.no_grad():
        layer.lora_A.copy_(torch.tensor(A))
        layer.lora_B.copy_(torch.tensor(B))
    entering = torch.tensor(x, requires_grad=True)
    y = layer(entering)
    y.backward(torch.tensor(dy))
    expected, cache = lora_linear_forward(x, W, A, B, lora.scale)
    np.testing.assert_allclose(y.detach(), expected, rtol=1e-12, atol=1e-12)
    ours = (entering.grad, layer.lora_A.grad, layer.lora_B.grad)
    for grad, by_hand in zip(ours, lora_linear_backward(dy, cache), strict=True):
        np.testing.assert_allclose(grad, by_hand, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_merged_equals_unmerged(tiny_config, lora, tied, dtype, bound):
    model = apply_lora(Llama.init(tiny_config(tied=tied), dtype=dtype), lora)
    randomize(adapter_params(model))
    text = tokens(model.config)
    with torch.no_grad():
        adapted, embedding = model(text), model.model.embed_tokens.weight.clone()
        merged = merge_lora(model)
        assert adapted.dtype == merged(text).dtype == dtype
        assert relative_error(merged(text).double(), adapted.double()) < bound
    assert not any(isinstance(layer, LoraLinear) for layer in model.modules())
    assert torch.equal(model.model.embed_tokens.weight, embedding)
    assert not model.config.tie_word_embeddings  # the head differs from the embedding now
    again = Llama.init(model.config, dtype=dtype)
    again.load_params({name: p.detach().double().numpy() for name, p in model.named_params().items()})
    assert torch.equal(again(text), model(text))


def test_merging_into_bfloat16_rounds_once(tiny_config, lora):
    """Every merged weight is the exact sum to half a unit of bfloat16, the float32 of the sum aside."""
    model = apply_lora(Llama.init(tiny_config(), dtype=torch.bfloat16), lora)
    randomize(adapter_params(model))
    assert model(tokens(model.config)).dtype == torch.bfloat16
    exact = {}
    for name, layer in adapted_layers(model).items():
        W, A, B = (p.detach().double() for p in (layer.weight, layer.lora_A, layer.lora_B))
        exact[name] = W + lora.scale * B @ A
        if lora.dora:
            exact[name] *= (layer.lora_magnitude_vector.detach().double() / exact[name].norm(dim=1))[:, None]
    merged = merge_lora(model).named_params()
    assert len(exact) == 15
    for name, expected in exact.items():
        error = (merged[f"{name}.weight"].double() - expected).abs()
        assert (error <= expected.abs() * 2**-8 + 1e-6).all(), name


@pytest.mark.parametrize("tied", [False, True])
def test_removed_is_as_before(tiny_config, lora, tied):
    model = Llama.init(tiny_config(tied=tied))
    text, parameters = tokens(model.config), model.named_params()
    before, names = model(text), list(model.state_dict())
    randomize(adapter_params(apply_lora(model, lora)))
    assert not torch.equal(model(text), before)
    remove_lora(model)
    assert torch.equal(model(text), before) and list(model.state_dict()) == names
    assert all(p is parameters[name] and p.requires_grad for name, p in model.named_params().items())
    apply_lora(model, lora)  # and may get another


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("head", [head_loss, chunked_head_loss])
def test_losses_that_multiply_by_the_heads_matrix_see_its_adapter(tiny_config, lora, tied, head):
    model = apply_lora(Llama.init(tiny_config(tied=tied)), lora)
    params = adapter_params(model)
    randomize(params)
    text = tokens(model.config)
    logits = model(text[:, :-1])
    by_logits = torch.nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten(), reduction="sum")
    loss = loss_sum(model, text[:, :-1], text[:, 1:], head)
    assert relative_error(loss, by_logits) < 1e-6
    expected = torch.autograd.grad(by_logits, list(params.values()))
    for name, grad, ours in zip(params, expected, torch.autograd.grad(loss, list(params.values())), strict=True):
        assert relative_error(ours, grad) < 1e-3, name


def test_doras_rows_have_the_learned_lengths_and_no_gradient_through_them():
    torch.manual_seed(0)
    layer = LoraLinear(torch.nn.Parameter(torch.randn(6, 4).double(), requires_grad=False), LoraConfig(r=2, dora=True))
    randomize(dict(layer.named_parameters()), only="lora")
    torch.testing.assert_close(layer.merged_weight().norm(dim=1), layer.lora_magnitude_vector, rtol=1e-12, atol=1e-12)
    x, dy = torch.randn(5, 4).double(), torch.randn(5, 6).double()
    grad = torch.autograd.grad((layer(x) * dy).sum(), layer.lora_B)[0]
    with torch.no_grad():  # by hand, the lengths held fixed: dB = s (m/n dy)^T (x A^T)
        n = (layer.weight + layer.lora.scale * layer.lora_B @ layer.lora_A).norm(dim=1)
        by_hand = layer.lora.scale * (dy * layer.lora_magnitude_vector / n).T @ (x @ layer.lora_A.T)
    torch.testing.assert_close(grad, by_hand, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dora", [False, True])
def test_the_fast_product_is_the_step_by_step_one(monkeypatch, precision, dora):
    found = []
    for slow in (True, False):
        torch.manual_seed(0)
        layer = LoraLinear(torch.nn.Parameter(torch.randn(6, 32), requires_grad=False), LoraConfig(r=4, dora=dora))
        randomize(dict(layer.named_parameters()), only="lora")
        if slow:
            monkeypatch.setattr(layer, "_needs_steps", lambda x: True)
        x = torch.randn(2, 5, 32, requires_grad=True)
        with Precision(precision, "cpu").autocast():
            y = layer(x)
        (y.float() ** 2).sum().backward()
        found.append([y, x.grad, *(p.grad for p in layer.parameters() if p.requires_grad)])
    assert len(found[0]) == 4 + dora and found[0][0].dtype == found[1][0].dtype
    for plain, fast in zip(*found, strict=True):
        assert relative_error(fast.float(), plain.float()) < (1e-6 if precision == "fp32" else 2e-2)


def test_a_base_that_is_trained_too_has_its_gradient():
    layer = LoraLinear(torch.nn.Parameter(torch.randn(6, 4)), LoraConfig(r=2))
    x = torch.randn(3, 4)
    layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(6, 4))


@pytest.mark.parametrize("tied", [False, True])
def test_a_base_rounded_to_bfloat16_trains_as_autocast_does(tiny_config, lora, tied):
    found = []
    for rounded in (False, True):
        model = apply_lora(Llama.init(tiny_config(tied=tied)), lora)
        randomize(adapter_params(model))
        if rounded:
            round_frozen(model, torch.bfloat16)
            assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
        text = tokens(model.config)
        with Precision("bf16", "cpu").autocast():
            loss = loss_sum(model, text[:, :-1], text[:, 1:])
        found.append([loss, *torch.autograd.grad(loss, list(adapter_params(model).values()))])
        assert model(text).dtype == torch.float32  # and outside of autocast it computes too
    if lora.dora:  # its lengths are those of the rounded rows: equal to the precision of the products
        assert relative_error(found[1][0], found[0][0]) < 0.01
    else:
        assert all(torch.equal(plain, ours) for plain, ours in zip(*found, strict=True))


def test_a_row_of_zeros_stays_one_under_dora():
    layer = LoraLinear(torch.nn.Parameter(torch.zeros(3, 4)), LoraConfig(r=2, dora=True))
    assert torch.equal(layer(torch.ones(2, 4)), torch.zeros(2, 3))


def test_dropout_is_before_the_adapter_only_and_only_while_training():
    layer = LoraLinear(torch.nn.Parameter(torch.eye(4)), LoraConfig(r=1, alpha=1, dropout=0.5))
    with torch.no_grad():
        layer.lora_A.fill_(1)
        layer.lora_B.fill_(1)
    x = torch.ones(4000, 4)
    torch.manual_seed(0)
    change = layer(x) - x  # 2 for each of four features that is kept
    assert set(change.unique().tolist()) == {0.0, 2.0, 4.0, 6.0, 8.0}
    assert change.mean().item() == pytest.approx(4, abs=0.15)
    assert torch.equal(layer.eval()(x) - x, torch.full_like(x, 4))


def test_a_second_adapter_and_a_missing_one_are_refused(tiny_config):
    model = Llama.init(tiny_config())
    for needs_one in (merge_lora, adapter_params):
        with pytest.raises(UserError, match="no adapter"):
            needs_one(model)
    apply_lora(model, LoraConfig())
    with pytest.raises(UserError, match="already"):
        apply_lora(model, LoraConfig())
