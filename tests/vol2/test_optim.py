"""Volume 2's update rules, against Volume 1's by hand and torch's own."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nano_llama.core.names import is_decayed, is_hidden_matrix  # noqa: E402
from nano_llama.training.optimizers import taken  # noqa: E402
from nano_llama.training.settings import TrainSettings  # noqa: E402
from nano_llama.vol1_numpy.optim import OPTIMIZERS  # noqa: E402
from nano_llama.vol1_numpy.optim import make_optimizer as make_by_hand  # noqa: E402
from nano_llama.vol2_torch import Llama  # noqa: E402
from nano_llama.vol2_torch.optim import EMA, Muon, make_optimizers  # noqa: E402
from nano_llama.vol2_torch.optim.muon import batched, by_shape, orthogonalize  # noqa: E402

SETTINGS = TrainSettings(max_steps=1, lr=0.01, weight_decay=0.3, beta1=0.8, beta2=0.9)


def gradients(params, step):
    rng = np.random.default_rng(step)
    return {name: rng.standard_normal(array.shape).astype(np.float32) for name, array in params.items()}


@pytest.mark.parametrize("name", ["adamw", "muon", "lion", "adafactor", "adam", "sgd", "momentum", "nesterov"])
def test_ten_steps_are_those_of_volume_1(tiny_config, name):
    model = Llama.init(tiny_config("gqa"))
    parameters = model.named_params()
    params = {key: value.detach().numpy().copy() for key, value in parameters.items()}
    betas = taken(OPTIMIZERS[name], betas=(0.8, 0.9))
    by_hand = make_by_hand(name, params, 0.01, weight_decay=0.3, **betas)
    optimizers = make_optimizers(parameters, SETTINGS.replace(optimizer=name))
    owned = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in owned} == {id(p) for p in parameters.values()} and len(owned) == len(parameters)
    for step in range(10):
        grads = gradients(params, step)
        for key, parameter in parameters.items():
            parameter.grad = torch.from_numpy(grads[key].copy())
        for optimizer in optimizers:
            optimizer.step()
        by_hand.step(params, grads)
    for key, parameter in parameters.items():
        difference = np.abs(parameter.detach().numpy() - params[key]).max() / np.abs(params[key]).max()
        assert difference < 1e-5, f"{key}: {difference:.2e}"


def test_only_matrices_are_decayed(tiny_config):
    for name in ("adamw", "muon", "lion", "adafactor"):
        parameters = Llama.init(tiny_config()).named_params()
        before = {key: value.detach().clone() for key, value in parameters.items()}
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        for optimizer in make_optimizers(parameters, SETTINGS.replace(optimizer=name)):
            optimizer.step()
        for key, parameter in parameters.items():
            expected = before[key] * (1 - 0.01 * 0.3) if is_decayed(key) else before[key]
            torch.testing.assert_close(parameter.detach(), expected, msg=key)


def test_adafactor_with_gradients_smaller_than_torchs_own_eps_and_with_none_at_all(tiny_config):
    """An embedding's rows that a batch has not seen have a gradient of 0; usual gradients have squares below 1e-7."""
    parameters = Llama.init(tiny_config()).named_params()
    params = {key: value.detach().numpy().copy() for key, value in parameters.items()}
    by_hand = make_by_hand("adafactor", params, 0.01)
    (optimizer,) = make_optimizers(parameters, SETTINGS.replace(optimizer="adafactor", weight_decay=0.0))
    for step in range(5):
        grads = {key: 1e-5 * grad for key, grad in gradients(params, step).items()}
        grads["model.embed_tokens.weight"][3:] = 0.0
        for key, parameter in parameters.items():
            parameter.grad = torch.from_numpy(grads[key].copy())
        optimizer.step()
        by_hand.step(params, grads)
    for key, parameter in parameters.items():
        np.testing.assert_allclose(parameter.detach().numpy(), params[key], rtol=1e-4, atol=1e-6, err_msg=key)


def test_muon_is_torchs_up_to_its_bfloat16(tiny_config):
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this PyTorch has no Muon")
    ours, theirs = (Llama.init(tiny_config()).named_params() for _ in range(2))
    hidden = [key for key in ours if is_hidden_matrix(key)]
    start = {key: ours[key].detach().clone() for key in hidden}
    optimizer = Muon([ours[key] for key in hidden], lr=0.01, weight_decay=0.1)
    reference = torch.optim.Muon(
        [theirs[key] for key in hidden], lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(3):
        grads = gradients({key: start[key].numpy() for key in hidden}, step)
        for key in hidden:
            ours[key].grad = torch.from_numpy(grads[key])
            theirs[key].grad = torch.from_numpy(grads[key].copy())
        optimizer.step()
        reference.step()
    for key in hidden:
        moved, expected = ours[key].detach() - start[key], theirs[key].detach() - start[key]
        assert (moved - expected).norm() < 0.02 * expected.norm(), key


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
def test_orthogonalized_matrices_have_singular_values_near_one(products):
    matrices = torch.randn(3, 24, 60, generator=torch.Generator().manual_seed(0))
    made = orthogonalize(matrices, products=products)
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.6 and values.max() < 1.25
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    polar = u @ vh
    cosine = (made * polar).sum((1, 2)) / (polar.norm(dim=(1, 2)) * made.norm(dim=(1, 2)))
    assert cosine.min() > 0.97
    assert (made - orthogonalize(matrices)).norm() < 0.02 * made.norm(), "in float32 nearly the same"


@pytest.mark.parametrize("name", ["muon", "lion", "adamw"])
def test_a_learning_rate_may_lie_on_the_device(tiny_config, name):
    """A recorded step reads it there: it is changed in place, and every step is that of the number."""
    by_number, by_tensor = (Llama.init(tiny_config("gqa")).named_params() for _ in range(2))
    lr = torch.zeros((), dtype=torch.float64)
    numbers, tensors = (make_optimizers(ps, SETTINGS.replace(optimizer=name)) for ps in (by_number, by_tensor))
    start = {key: value.detach().numpy().copy() for key, value in by_number.items()}
    for group in (group for optimizer in tensors for group in optimizer.param_groups):
        group["lr"] = lr
    for step, rate in enumerate((0.02, 0.005, 0.0, 0.01)):
        lr.fill_(rate)
        grads = gradients(start, step)
        for parameters in (by_number, by_tensor):
            for key, parameter in parameters.items():
                parameter.grad = torch.from_numpy(grads[key].copy())
        for group in (group for optimizer in numbers for group in optimizer.param_groups):
            group["lr"] = rate
        for optimizer in (*numbers, *tensors):
            optimizer.step()
        assert all(group["lr"] is lr for optimizer in tensors for group in optimizer.param_groups)
    for key, value in by_number.items():
        torch.testing.assert_close(by_tensor[key], value, rtol=1e-6, atol=1e-7, msg=key)


def test_matrices_of_one_shape_are_one_batch_whichever_way_they_lie(tiny_config):
    parameters = {key: p for key, p in Llama.init(tiny_config("gqa")).named_params().items() if is_hidden_matrix(key)}
    alike = by_shape(parameters.values())
    names = {id(parameter): name for name, parameter in parameters.items()}
    kinds = sorted(sorted({names[id(p)].split(".")[-2] for p in group}) for group in alike.values())
    assert kinds == [["down_proj", "gate_proj", "up_proj"], ["k_proj", "v_proj"], ["o_proj", "q_proj"]]
    assert sum(map(len, alike.values())) == len(parameters)


def test_a_batch_is_each_matrix_by_itself_and_lies_in_memory_as_it_does():
    rng = torch.Generator().manual_seed(0)
    matrices = [torch.randn(shape, generator=rng) for shape in ((6, 16), (16, 6), (16, 6), (6, 16), (16, 6))]
    calls = []

    def noted(wide):
        calls.append(tuple(wide.shape))
        return orthogonalize(wide)

    for chosen in (matrices, matrices[:1], matrices[1:3]):
        made = batched(noted, chosen)
        for matrix, found in zip(chosen, made, strict=True):
            wide = matrix if matrix.shape[0] == 6 else matrix.T
            expected = orthogonalize(wide[None])[0]
            torch.testing.assert_close(found if found.shape == wide.shape else found.T, expected, rtol=0, atol=1e-6)
            assert found.shape == matrix.shape and found.stride() == matrix.stride(), (
                "or a foreach adds them one by one"
            )
    assert calls == [(5, 6, 16), (1, 6, 16), (2, 6, 16)]


@pytest.mark.parametrize("name", ["muon", "lion"])
def test_nothing_in_an_update_waits_for_the_device(tiny_config, name):
    """Tensors without contents have no number to give to the host: .item() or a branch on one would raise."""
    parameters = {
        key: torch.nn.Parameter(torch.empty_like(value, device="meta"))
        for key, value in Llama.init(tiny_config("gqa")).named_params().items()
    }
    optimizers = make_optimizers(parameters, SETTINGS.replace(optimizer=name))
    average = EMA(parameters, 0.9)
    for parameter in parameters.values():
        parameter.grad = torch.empty_like(parameter)
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters.values()])
    with pytest.raises(RuntimeError):
        norm.item()
    torch.nn.utils.clip_grads_with_norm_(parameters.values(), 1.0, norm)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = torch.empty((), device="meta")
        if not isinstance(optimizer, torch.optim.AdamW):  # torch's own, whose fused kernel is not for such tensors
            optimizer.step()
    average.update()
