"""Flash attention in Triton: the kernels, interpreted, against Volume 1's plain attention in float64.

The first tests need triton; those of refusals do not. Known mistakes, planted: test_flash_faults.py.
"""

import sys
from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers.flash_attention import CASES, Case, check, flash, inputs
from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.vol2_torch.activation_checkpointing import checkpointed
from nano_llama.vol2_torch.kernels import flash_attention
from nano_llama.vol2_torch.kernels.flash_configs import KERNELS, KernelConfig, configs_set_to

SMALL = dict.fromkeys(KERNELS, KernelConfig(16, 16, 4, 1))


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.triton
@pytest.mark.parametrize("name", CASES)
def test_equals_volume_1(name):
    check(CASES[name])


@pytest.mark.triton
@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    group=st.integers(1, 3), G=st.integers(1, 2), T=st.integers(1, 90), S=st.integers(1, 90), K=st.integers(16, 128),
    causal=st.booleans(), tiles=st.sampled_from([(32, 32), (32, 64), (64, 32), (64, 64)]),
)  # fmt: skip
def test_equals_volume_1_in_any_shape(group, G, T, S, K, causal, tiles):
    check(Case(H=group * G, G=G, T=T, S=S, K=K, causal=causal, tiles=tiles))


@pytest.mark.triton
@pytest.mark.parametrize("causal", [True, False])
def test_finite_differences(causal):
    q, k, v = (draw(1, n, t, 16, dtype=torch.float64, seed=n).requires_grad_() for n, t in ((2, 5), (1, 7), (1, 7)))
    with configs_set_to(**SMALL):
        # fast_mode: along random directions, not along each of the 384 inputs
        assert torch.autograd.gradcheck(
            lambda *x: flash_attention(*x, causal), (q, k, v), eps=1e-6, atol=1e-6, fast_mode=True
        )


@pytest.mark.triton
def test_rows_that_see_no_key_are_zeros_and_pass_no_gradient_on():
    case = CASES["more queries than keys: the first see none"]
    out, dq, *_ = flash(case, *inputs(case))
    unseen = case.T - case.S
    assert not out[:, :, :unseen].any() and not dq[:, :, :unseen].any()
    assert out[:, :, unseen:].all()
    assert not any(x.any() for x in flash(CASES["no document in common"], *inputs(CASES["no document in common"])))


@pytest.mark.triton
def test_scores_of_ten_thousand():
    """The weight is all on one key, so out is its value; neither overflow nor NaN, in the gradients either."""
    case = Case(T=40, S=40, K=16, causal=False)
    (q, k, v, dout), _ = inputs(case)
    k = np.sign(k)
    q = 1e4 * k[:, [0, 0]]  # a score of 40,000 for the own key and far less for the others
    out, *gradients = flash(case, [q, k, v, dout], None)
    np.testing.assert_allclose(out, v[:, [0, 0]], atol=1e-6)
    assert all(np.isfinite(x).all() for x in gradients)
    out, *gradients = flash(case, [-q, k, v, dout], None)
    assert all(np.isfinite(x).all() for x in (out, *gradients))


@pytest.mark.triton
def test_strided_inputs_and_outputs():
    """As the model has them: views of a projection's output (B,T,n*K); also broadcast, and with strided rows."""
    B, T, H, K = 2, 40, 2, 32
    together = draw(B, T, 3, H, K)
    q, k, v = together.permute(2, 0, 3, 1, 4)  # (B,H,T,K) each, none contiguous
    dout = draw(B, H, T, K, seed=1)

    def results(*x: torch.Tensor, dout: torch.Tensor = dout) -> tuple[torch.Tensor, ...]:
        leaves = [each.detach().requires_grad_() for each in x]
        out = flash_attention(*leaves)
        return out, *torch.autograd.grad(out, leaves, dout)

    expected = results(*(x.contiguous() for x in (q, k, v)))
    assert expected[0].transpose(1, 2).is_contiguous()
    for ours, right in zip(results(q, k, v), expected, strict=True):
        assert torch.equal(ours, right)
    rows_apart = [x.mT.contiguous().mT for x in (q, k, v)]
    for ours, right in zip(results(*rows_apart), expected, strict=True):
        assert torch.equal(ours, right)
    constant = torch.ones(()).expand(B, H, T, K)  # what out.sum() passes on: every stride is 0
    for ours, right in zip(results(q, k, v, dout=constant), results(q, k, v, dout=constant.clone()), strict=True):
        assert torch.equal(ours, right)


@pytest.mark.triton
def test_the_order_of_the_programs_does_not_matter(monkeypatch):
    from triton.runtime.interpreter import interpreter_builder

    case = Case(T=70, S=70, documents="ascending")
    forwards = flash(case, *inputs(case))
    original, starts = interpreter_builder.set_grid_idx, []

    def reverse(x: int, y: int, z: int) -> None:
        starts.append(interpreter_builder.grid_dim[0] - 1 - x)
        original(starts[-1], y, z)

    monkeypatch.setattr(interpreter_builder, "set_grid_idx", reverse)
    backwards = flash(case, *inputs(case))
    assert starts[0] > 0
    for ours, right in zip(backwards, forwards, strict=True):
        assert np.array_equal(ours, right)


@pytest.mark.triton
@pytest.mark.parametrize("causal", [True, False])
def test_the_tiles_change_nothing_but_the_last_bits(causal):
    case = Case(H=1, T=130, S=130, causal=causal, tiles=(128, 128))
    for tiles in ((64, 32), (32, 128)):
        for ours, right in zip(flash(case.but(tiles=tiles), *inputs(case)), flash(case, *inputs(case)), strict=True):
            np.testing.assert_allclose(ours, right, atol=2e-6)


# -- as torch sees it ---------------------------------------------------------------------------------------------


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 3 * 32, bias=False)
        torch.nn.init.normal_(self.qkv.weight, std=0.2, generator=torch.Generator().manual_seed(0))

    def forward(self, x: torch.Tensor, documents: torch.Tensor | None = None) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
        return flash_attention(q, k, v, documents=documents).transpose(1, 2).flatten(2).relu()


@pytest.mark.triton
@pytest.mark.parametrize("packed", [False, True])
def test_a_compiled_layer_stays_whole(packed):
    x = draw(2, 20, 32)
    documents = (torch.arange(20) // 7).expand(2, 20) if packed else None
    plain, whole = Layer(), Layer()
    compiled = torch.compile(whole, fullgraph=True, backend="aot_eager")
    expected, out = plain(x, documents), compiled(x, documents)
    torch.testing.assert_close(out, expected)
    expected.square().sum().backward()
    out.square().sum().backward()
    torch.testing.assert_close(whole.qkv.weight.grad, plain.qkv.weight.grad)


@pytest.mark.triton
@pytest.mark.parametrize(("kind", "runs"), [("selective", 1), ("full", 2)])
def test_selective_checkpointing_keeps_its_result(kind, runs, monkeypatch):
    module = import_module("nano_llama.vol2_torch.kernels.flash_attention")
    launched: list[str] = []
    choose = module.config_for
    monkeypatch.setattr(module, "config_for", lambda kernel, *rest: launched.append(kernel) or choose(kernel, *rest))
    checkpointed(kind, Layer(), draw(1, 20, 32)).sum().backward()
    assert launched.count("forward") == runs


@pytest.mark.triton
def test_the_operators_are_what_torch_takes_them_for():
    q, k, v = (draw(1, n, 20, 16, seed=n).requires_grad_() for n in (2, 1, 1))
    documents = torch.arange(20)[None] // 7
    with configs_set_to(**SMALL):
        torch.library.opcheck(torch.ops.nano_llama.flash_attention.default, (q, k, v, True, documents, documents))


@pytest.mark.triton
def test_autocast_converts_as_for_torchs_own_attention():
    q, k, v = (draw(1, 2, 20, 16, seed=n) for n in range(3))
    with torch.autocast("cpu", torch.float16):
        out = flash_attention(q, k, v.half())
    assert out.dtype == torch.float16
    assert torch.equal(out, flash_attention(q.half(), k.half(), v.half()))


# -- refusals -----------------------------------------------------------------------------------------------------


def tensors(H=2, G=1, T=8, S=8, K=16, B=1):
    return draw(B, H, T, K), draw(B, G, S, K), draw(B, G, S, K)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*tensors()[:2], draw(1, 1, 8, 32)), r"expected q \(B,H,T,K\) and k, v \(B,G,S,K\)"),
        ((draw(2, 8, 16), *tensors()[1:]), r"expected q \(B,H,T,K\)"),
        (tensors(H=3, G=2), "3 query heads, which is not a multiple of 2"),
        (tensors(K=8), "head dim 8; the kernels take 16 to 128"),
        (tensors(K=256), "head dim 256"),
        ((*tensors(), True, None, torch.zeros(1, 8, dtype=torch.long)), "key_documents without documents"),
        ((*tensors(S=9), True, torch.zeros(1, 8, dtype=torch.long)), r"key_documents \(1, 8\).*integers, \(1, 9\)"),
        ((*tensors(), True, torch.zeros(1, 8)), r"documents \(1, 8\) of torch.float32"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(arguments, says):
    with pytest.raises(UserError, match=says):
        flash_attention(*arguments)


def test_float64_is_for_the_interpreter(monkeypatch):
    module = import_module("nano_llama.vol2_torch.kernels.flash_attention")
    monkeypatch.setattr(module, "check_tensors", lambda feature, *tensors: None)
    monkeypatch.setattr(module, "is_interpreted", lambda: False)
    with pytest.raises(UserError, match="float64 is for tests"):
        flash_attention(*(x.double() for x in tensors()))


def test_without_triton_the_call_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)  # importing it raises ModuleNotFoundError
    with pytest.raises(EnvironmentFault, match="Flash attention needs the package 'triton'"):
        flash_attention(*tensors())
