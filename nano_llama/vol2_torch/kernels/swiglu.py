"""SwiGLU's middle in Triton, silu(gate) * up, and its backward pass, which recomputes silu instead of keeping it.

The derivation is in vol1_numpy/ops/swiglu.py. Computed in float32 (or float64) and rounded once; PyTorch's two
operations round twice. The reference is `swiglu_reference`. Tests: tests/vol2/kernels/test_swiglu.py.
"""

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from nano_llama.vol2_torch.kernels.tiles import check_each, computed_in, number_tile, programs, wide


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """gate, up (...,F) -> silu(gate) * up (...,F). Differentiable."""
    return _swiglu(gate, up)


def swiglu_reference(gate: Tensor, up: Tensor) -> Tensor:
    return (F.silu(gate.to(wide(gate))) * up.to(wide(up))).to(gate.dtype)


@triton.jit
def swiglu_kernel(GATE, UP, Y, numbers, FLOAT: tl.constexpr, WIDTH: tl.constexpr):
    """GATE, UP, Y: (numbers,). A program computes WIDTH of them."""
    at = tl.program_id(0).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)  # (WIDTH,)
    inside = at < numbers
    gate = tl.load(GATE + at, mask=inside, other=0.0).to(FLOAT)
    up = tl.load(UP + at, mask=inside, other=0.0).to(FLOAT)
    y = gate * tl.sigmoid(gate) * up
    tl.store(Y + at, y.to(Y.dtype.element_ty), mask=inside)


@triton.jit
def swiglu_backward_kernel(DY, GATE, UP, DGATE, DUP, numbers, FLOAT: tl.constexpr, WIDTH: tl.constexpr):
    """All (numbers,). A program computes WIDTH of them."""
    at = tl.program_id(0).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)  # (WIDTH,)
    inside = at < numbers
    dy = tl.load(DY + at, mask=inside, other=0.0).to(FLOAT)
    gate = tl.load(GATE + at, mask=inside, other=0.0).to(FLOAT)
    up = tl.load(UP + at, mask=inside, other=0.0).to(FLOAT)
    s = tl.sigmoid(gate)
    dgate = dy * up * s * (1.0 + gate * (1.0 - s))
    tl.store(DGATE + at, dgate.to(DGATE.dtype.element_ty), mask=inside)
    tl.store(DUP + at, (dy * gate * s).to(DUP.dtype.element_ty), mask=inside)


@torch.library.custom_op("nano_llama::swiglu", mutates_args=())
def _swiglu(gate: Tensor, up: Tensor) -> Tensor:
    check_each("swiglu", gate, up)
    assert gate.shape == up.shape, "two branches of the same input"
    gate, up = gate.contiguous(), up.contiguous()
    y = torch.empty_like(gate)
    width = number_tile(gate.numel())
    swiglu_kernel[programs(gate.numel(), width)](gate, up, y, gate.numel(), FLOAT=computed_in(gate), WIDTH=width)
    return y


@_swiglu.register_fake
def _(gate: Tensor, up: Tensor) -> Tensor:
    return gate.new_empty(gate.shape)


@torch.library.custom_op("nano_llama::swiglu_backward", mutates_args=())
def _swiglu_backward(dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    dy, gate, up = dy.contiguous(), gate.contiguous(), up.contiguous()
    dgate, dup = torch.empty_like(gate), torch.empty_like(up)
    width = number_tile(gate.numel())
    swiglu_backward_kernel[programs(gate.numel(), width)](
        dy, gate, up, dgate, dup, gate.numel(), FLOAT=computed_in(gate), WIDTH=width
    )
    return dgate, dup


@_swiglu_backward.register_fake
def _(dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    return gate.new_empty(gate.shape), up.new_empty(up.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
    return _swiglu_backward(dy, *ctx.saved_tensors)


_swiglu.register_autograd(_backward, setup_context=_keep)
