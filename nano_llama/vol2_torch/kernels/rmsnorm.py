"""RMSNorm in Triton, alone and with the residual addition before it: one pass over the stream instead of three.

    stream = x + residual,   y = stream * r * weight,   r = 1 / sqrt(mean(stream^2) + eps)

The derivation of the backward pass is in vol1_numpy/ops/rmsnorm.py. It recomputes r from the row, which it reads in
any case, so that nothing is kept but the stream. dweight is a sum over all rows: each program sums those of its own,
and a second pass adds the programs' sums in their order; no atomics, so that the same input gives the same bits.
Computed in float32, or float64 where the stream is. The references are `rmsnorm_reference` and `add_rmsnorm_reference`.
Tests: tests/vol2/kernels/test_rmsnorm.py.
"""

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from nano_llama.vol2_torch.kernels.tiles import check_each, computed_in, programs, row_tile, wide

PARTIAL_SUMS = 256  # programs of the backward pass at most: each leaves a row of sums


def rmsnorm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype | None = None) -> Tensor:
    """x (...,D), weight (D,) -> y (...,D) in `dtype`, by default x's own. Differentiable."""
    return _rmsnorm(x, weight, eps, dtype or x.dtype)


def add_rmsnorm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """x, residual (...,D), weight (D,) -> the new residual x + residual, in its dtype, and its norm in `dtype`."""
    return _add_rmsnorm(x, residual, weight, eps, dtype or residual.dtype)


def rmsnorm_reference(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype | None = None) -> Tensor:
    return F.rms_norm(x.to(wide(x)), weight.shape, weight.to(wide(x)), eps).to(dtype or x.dtype)


def add_rmsnorm_reference(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    stream = (x.to(wide(x)) + residual.to(wide(residual))).to(residual.dtype)
    return stream, rmsnorm_reference(stream, weight, eps, dtype or residual.dtype)


# -- kernels ---------------------------------------------------------------------------------------------------------


@triton.jit
def rmsnorm_kernel(
    X, RESIDUAL, WEIGHT, STREAM, Y, N, D, eps,
    ADD: tl.constexpr, FLOAT: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """X, RESIDUAL, STREAM, Y: (N,D). A program computes ROWS rows."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)  # (ROWS,)
    columns = tl.arange(0, WIDTH)  # (WIDTH,)
    at = rows[:, None].to(tl.int64) * D + columns[None, :]  # (ROWS,WIDTH)
    inside = (rows[:, None] < N) & (columns[None, :] < D)
    x = tl.load(X + at, mask=inside, other=0.0).to(FLOAT)
    if ADD:
        x += tl.load(RESIDUAL + at, mask=inside, other=0.0).to(FLOAT)
        x = x.to(STREAM.dtype.element_ty).to(FLOAT)  # the norm is of what the stream holds
        tl.store(STREAM + at, x.to(STREAM.dtype.element_ty), mask=inside)
    r = 1.0 / tl.sqrt(tl.sum(x * x, axis=1) / D + eps)  # (ROWS,)
    weight = tl.load(WEIGHT + columns, mask=columns < D, other=0.0).to(FLOAT)  # (WIDTH,)
    y = x * r[:, None] * weight[None, :]
    tl.store(Y + at, y.to(Y.dtype.element_ty), mask=inside)


@triton.jit
def rmsnorm_backward_kernel(
    DY, DSTREAM, STREAM, WEIGHT, DX, NARROW, SUMS, N, D, eps, rows_each,
    ADD: tl.constexpr, TWO: tl.constexpr, FLOAT: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """DY, DSTREAM, STREAM, DX, NARROW: (N,D); SUMS (programs,D). A program computes rows_each rows, a multiple of
    ROWS, which it has at a time.

    ADD: the stream has a gradient of its own. TWO: NARROW holds DX once more, in the format of the branch.
    """
    first = tl.program_id(0) * rows_each
    columns = tl.arange(0, WIDTH)  # (WIDTH,)
    weight = tl.load(WEIGHT + columns, mask=columns < D, other=0.0).to(FLOAT)
    dweight = tl.zeros((WIDTH,), FLOAT)
    for start in range(first, tl.minimum(first + rows_each, N), ROWS):
        rows = start + tl.arange(0, ROWS)  # (ROWS,)
        at = rows[:, None].to(tl.int64) * D + columns[None, :]  # (ROWS,WIDTH)
        inside = (rows[:, None] < N) & (columns[None, :] < D)
        x = tl.load(STREAM + at, mask=inside, other=0.0).to(FLOAT)
        dy = tl.load(DY + at, mask=inside, other=0.0).to(FLOAT)
        r = 1.0 / tl.sqrt(tl.sum(x * x, axis=1) / D + eps)  # (ROWS,)
        g = dy * weight[None, :]
        dx = r[:, None] * g - x * (r * r * r * (tl.sum(g * x, axis=1) / D))[:, None]
        if ADD:
            dx += tl.load(DSTREAM + at, mask=inside, other=0.0).to(FLOAT)
        tl.store(DX + at, dx.to(DX.dtype.element_ty), mask=inside)
        if TWO:
            tl.store(NARROW + at, dx.to(NARROW.dtype.element_ty), mask=inside)
        dweight += tl.sum(dy * x * r[:, None], axis=0)
    tl.store(SUMS + tl.program_id(0) * D + columns, dweight, mask=columns < D)


# -- as operators of torch, which torch.compile keeps as they are ------------------------------------------------------


@torch.library.custom_op("nano_llama::rmsnorm", mutates_args=())
def _rmsnorm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x, dtype=dtype)
    check_each("rmsnorm", x, weight, y)
    N, D = x.numel() // x.shape[-1], x.shape[-1]
    tile = row_tile(N, D)
    rmsnorm_kernel[programs(N, tile.rows)](
        x, x, weight, x, y, N, D, eps,
        ADD=False, FLOAT=computed_in(x), ROWS=tile.rows, WIDTH=tile.width, num_warps=tile.num_warps,
    )  # fmt: skip
    return y


@_rmsnorm.register_fake
def _(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    return x.new_empty(x.shape, dtype=dtype)


@torch.library.custom_op("nano_llama::add_rmsnorm", mutates_args=())
def _add_rmsnorm(x: Tensor, residual: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    assert x.shape == residual.shape, "the branch and the stream that it is added to"
    x, residual = x.contiguous(), residual.contiguous()
    stream, y = torch.empty_like(residual), torch.empty_like(x, dtype=dtype)
    check_each("add_rmsnorm", x, residual, weight, y)
    N, D = x.numel() // x.shape[-1], x.shape[-1]
    tile = row_tile(N, D)
    rmsnorm_kernel[programs(N, tile.rows)](
        x, residual, weight, stream, y, N, D, eps,
        ADD=True, FLOAT=computed_in(residual), ROWS=tile.rows, WIDTH=tile.width, num_warps=tile.num_warps,
    )  # fmt: skip
    return stream, y


@_add_rmsnorm.register_fake
def _(x: Tensor, residual: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return residual.new_empty(x.shape), x.new_empty(x.shape, dtype=dtype)


@torch.library.custom_op("nano_llama::rmsnorm_backward", mutates_args=())
def _rmsnorm_backward(
    dy: Tensor, dstream: Tensor | None, stream: Tensor, weight: Tensor, eps: float, branch: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """-> dx in the stream's dtype; in the branch's, where that is another (else empty); dweight (D,)"""
    dy, stream = dy.contiguous(), stream.contiguous()
    add, two = dstream is not None, branch != stream.dtype
    dstream = dy if dstream is None else dstream.contiguous()
    dx = torch.empty_like(stream)
    narrow = stream.new_empty(stream.shape if two else (0,), dtype=branch)
    N, D = stream.numel() // stream.shape[-1], stream.shape[-1]
    tile = row_tile(N, D)
    rows_each = triton.cdiv(triton.cdiv(N, PARTIAL_SUMS), tile.rows) * tile.rows
    grid = programs(N, rows_each)
    sums = stream.new_empty((*grid, D), dtype=wide(stream))
    rmsnorm_backward_kernel[grid](
        dy, dstream, stream, weight, dx, narrow, sums, N, D, eps, rows_each,
        ADD=add, TWO=two, FLOAT=computed_in(stream), ROWS=tile.rows, WIDTH=tile.width, num_warps=tile.num_warps,
    )  # fmt: skip
    return dx, narrow, sums.sum(0).to(weight.dtype)


@_rmsnorm_backward.register_fake
def _(
    dy: Tensor, dstream: Tensor | None, stream: Tensor, weight: Tensor, eps: float, branch: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    two = branch != stream.dtype
    narrow = stream.new_empty(stream.shape if two else (0,), dtype=branch)
    return stream.new_empty(stream.shape), narrow, torch.empty_like(weight)


def _keep_input(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, ctx.eps, _ = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None, None]:
    x, weight = ctx.saved_tensors
    dx, _, dweight = _rmsnorm_backward(dy, None, x, weight, ctx.eps, x.dtype)
    return dx, dweight, None, None


def _keep_stream(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, _, weight, ctx.eps, _ = inputs
    ctx.branch = x.dtype
    ctx.save_for_backward(output[0], weight)


def _add_backward(ctx: Any, dstream: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
    """x and residual reach the loss alike, through their sum: they have the same gradient."""
    stream, weight = ctx.saved_tensors
    dx, narrow, dweight = _rmsnorm_backward(dy, dstream, stream, weight, ctx.eps, ctx.branch)
    return dx if ctx.branch == stream.dtype else narrow, dx, dweight, None, None


_rmsnorm.register_autograd(_backward, setup_context=_keep_input)
_add_rmsnorm.register_autograd(_add_backward, setup_context=_keep_stream)
