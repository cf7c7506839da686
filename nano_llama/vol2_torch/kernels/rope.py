"""RoPE in Triton: queries and keys rotated by the angles of their positions, in one launch, half layout.

The derivation is in vol1_numpy/ops/rope.py. A program has some positions and goes through all heads, so that it reads
their cos and sin once. The backward pass is the rotation by the opposite angle: the same kernel with -sin.
Computed in float32 (or float64) and rounded once. The reference, `rope_reference`, is model.py's `rotate` of each.
Tests: tests/vol2/kernels/test_rope.py.

Shapes: q (B,H,T,K), k (B,G,T,K) with any strides but the last; cos, sin (T,K/2), or (B,1,T,K/2) where each text has
positions of its own.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from nano_llama.vol2_torch.kernels.tiles import check_each, computed_in, programs, row_tile, wide
from nano_llama.vol2_torch.model import rotate


def rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """q (B,H,T,K) and k (B,G,T,K), rotated. Differentiable in both."""
    return _rope(q, k, cos, sin, 1.0)


def rope_(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> None:
    """The same in place, where no gradient is wanted."""
    _rope_in_place(q, k, cos, sin)


def rope_reference(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    q_rotated, k_rotated = (rotate(x.to(wide(x)), cos.to(wide(x)), sin.to(wide(x))).to(x.dtype) for x in (q, k))
    return q_rotated, k_rotated


@triton.jit
def rotate_head(X, Y, at, half, inside, cos, sin, FLOAT: tl.constexpr):
    """The planes at X + at and X + at + half of one head, (ROWS,WIDTH) each, rotated into Y."""
    first = tl.load(X + at, mask=inside, other=0.0).to(FLOAT)
    second = tl.load(X + at + half, mask=inside, other=0.0).to(FLOAT)
    tl.store(Y + at, (first * cos - second * sin).to(Y.dtype.element_ty), mask=inside)
    tl.store(Y + at + half, (second * cos + first * sin).to(Y.dtype.element_ty), mask=inside)


@triton.jit
def rope_kernel(
    Q, K, Q_OUT, K_OUT, COS, SIN, sign, N, T, half, q_text, q_head, q_position, k_text, k_head, k_position, angle_text,
    H: tl.constexpr, G: tl.constexpr, FLOAT: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """N = B T positions, of which a program rotates ROWS, in every head. half: K/2; sign: 1, or -1 to rotate back.

    *_text, *_head, *_position: strides, those of the output as of the input; angle_text: of COS and SIN, 0 where the
    texts share them.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)  # (ROWS,)
    text, position = (rows // T).to(tl.int64), (rows % T).to(tl.int64)
    columns = tl.arange(0, WIDTH)[None, :]
    inside = (rows[:, None] < N) & (columns < half)  # (ROWS,WIDTH)
    angle = (text * angle_text + position * half)[:, None] + columns
    cos = tl.load(COS + angle, mask=inside, other=0.0).to(FLOAT)
    sin = tl.load(SIN + angle, mask=inside, other=0.0).to(FLOAT) * sign
    q_at = (text * q_text + position * q_position)[:, None] + columns
    k_at = (text * k_text + position * k_position)[:, None] + columns
    for h in range(H):
        rotate_head(Q, Q_OUT, q_at + h * q_head, half, inside, cos, sin, FLOAT)
    for g in range(G):
        rotate_head(K, K_OUT, k_at + g * k_head, half, inside, cos, sin, FLOAT)


def launch(q: Tensor, k: Tensor, q_out: Tensor, k_out: Tensor, cos: Tensor, sin: Tensor, sign: float) -> None:
    check_each("rope", q, k, cos, sin)
    B, H, T, K = q.shape
    assert q.stride(-1) == k.stride(-1) == 1 and q.stride() == q_out.stride() and k.stride() == k_out.stride()
    assert cos.shape == sin.shape and cos.shape[-2:] == (T, K // 2), "angles for each position"
    cos, sin = cos.contiguous(), sin.contiguous()
    angle_text = cos.stride(0) if cos.dim() == 4 and cos.shape[0] > 1 else 0
    tile = row_tile(B * T, K // 2)
    rows = max(tile.rows // 4, 1)  # six tiles are held at a time
    rope_kernel[programs(B * T, rows)](
        q, k, q_out, k_out, cos, sin, sign, B * T, T, K // 2, *q.stride()[:3], *k.stride()[:3], angle_text,
        H=H, G=k.shape[1], FLOAT=computed_in(q), ROWS=rows, WIDTH=tile.width,
    )  # fmt: skip


def dense(x: Tensor) -> Tensor:
    """x, or a copy, without gaps and overlaps and with a contiguous last dimension: an output can be laid out alike."""
    return x if x.stride(-1) == 1 and torch.empty_like(x).stride() == x.stride() else x.contiguous()


@torch.library.custom_op("nano_llama::rope", mutates_args=())
def _rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, sign: float) -> tuple[Tensor, Tensor]:
    q, k = dense(q), dense(k)
    q_out, k_out = torch.empty_like(q), torch.empty_like(k)
    launch(q, k, q_out, k_out, cos, sin, sign)
    return q_out, k_out


@_rope.register_fake
def _(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, sign: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(dense(q)), torch.empty_like(dense(k))


@torch.library.custom_op("nano_llama::rope_", mutates_args=("q", "k"))
def _rope_in_place(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> None:
    launch(q, k, q, k, cos, sin, 1.0)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, _, cos, sin, ctx.sign = inputs
    ctx.save_for_backward(cos, sin)


def _backward(ctx: Any, dq: Tensor, dk: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
    cos, sin = ctx.saved_tensors
    return *_rope(dq, dk, cos, sin, -ctx.sign), None, None, None


_rope.register_autograd(_backward, setup_context=_keep)
