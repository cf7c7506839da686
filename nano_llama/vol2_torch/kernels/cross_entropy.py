"""Cross-entropy in Triton that turns logits into their gradient in place, and a head's loss that holds one chunk.

    loss = lse - logits[target] + z_loss lse^2,   lse = log sum exp(logits)
    dlogits = p (1 + 2 z_loss lse) - 1[target],   p = exp(logits - lse);    0 where the target is ignored

The derivation is in vol1_numpy/ops/cross_entropy.py. A program goes through its rows twice: once for lse, with a
running maximum (Milakov and Gimelshein 2018, arXiv 1805.02867), and once to write the gradient. So logits are read
twice and written once, in the format that the head's product has left them in. Computed in float32 (or float64).
The reference is loss.py's `gradient_in_place`. Tests: tests/vol2/kernels/test_cross_entropy.py.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.vol2_torch.kernels.tiles import TILE_NUMBERS, check_each, computed_in, programs, row_tile, wide
from nano_llama.vol2_torch.loss import chunk_rows, chunked_head_loss


@triton.jit
def cross_entropy_kernel(
    LOGITS, TARGETS, LOSSES, N, V, z_loss,
    IGNORED: tl.constexpr, GRADIENT: tl.constexpr, FLOAT: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """LOGITS (N,V), TARGETS and LOSSES (N,). A program has ROWS rows, of which it reads WIDTH logits at a time."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)  # (ROWS,)
    here = rows < N
    starts = rows.to(tl.int64)[:, None] * V  # (ROWS,1)
    target = tl.load(TARGETS + rows, mask=here, other=IGNORED)  # (ROWS,)
    counted = target != IGNORED
    known = counted & (target >= 0) & (target < V)  # any other counts as NaN, and reads nothing beyond the row
    chosen = tl.load(LOGITS + rows.to(tl.int64) * V + target, mask=known, other=float("nan")).to(FLOAT)
    top = tl.full((ROWS,), float("-inf"), FLOAT)
    total = tl.zeros((ROWS,), FLOAT)  # of exp(logits - top)
    for begin in range(0, V, WIDTH):
        columns = begin + tl.arange(0, WIDTH)[None, :]  # (1,WIDTH)
        x = tl.load(LOGITS + starts + columns, mask=here[:, None] & (columns < V), other=float("-inf")).to(FLOAT)
        x = tl.where(here[:, None], x, 0.0)  # beyond the last row: a sum that is finite, of which nothing is stored
        higher = tl.maximum(top, tl.max(x, axis=1))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(x - higher[:, None]), axis=1)
        top = higher
    lse = top + tl.log(total)  # (ROWS,)
    losses = lse - chosen + z_loss * lse * lse
    tl.store(LOSSES + rows, tl.where(counted, losses, 0.0), mask=here)
    if GRADIENT:
        tl.debug_barrier()  # every thread has read its rows' target before any overwrites it
        scale = tl.where(counted, 1.0 + 2.0 * z_loss * lse, 0.0)[:, None]  # (ROWS,1)
        for begin in range(0, V, WIDTH):
            columns = begin + tl.arange(0, WIDTH)[None, :]
            inside = here[:, None] & (columns < V)
            x = tl.load(LOGITS + starts + columns, mask=inside, other=0.0).to(FLOAT)
            at_target = (columns == target[:, None]) & counted[:, None]
            dx = tl.exp(x - lse[:, None]) * scale - tl.where(at_target, 1.0, 0.0)
            tl.store(LOGITS + starts + columns, dx.to(LOGITS.dtype.element_ty), mask=inside)


@torch.library.custom_op("nano_llama::cross_entropy_", mutates_args=("logits",))
def cross_entropy_(logits: Tensor, targets: Tensor, z_loss: float, gradient: bool) -> Tensor:
    """logits (N,V) contiguous, targets (N,) -> losses (N,) in float32 (or float64), 0 where ignored.

    gradient: logits become the gradient of the losses' sum; else they stay.
    """
    check_each("cross_entropy", logits)
    assert logits.is_contiguous() and targets.is_contiguous(), "rows are found by their number"
    N, V = logits.shape
    losses = logits.new_empty(N, dtype=wide(logits))
    if N == 0:
        return losses
    tile = row_tile(N, min(V, TILE_NUMBERS))
    cross_entropy_kernel[programs(N, tile.rows)](
        logits, targets, losses, N, V, z_loss,
        IGNORED=IGNORE_INDEX, GRADIENT=gradient, FLOAT=computed_in(logits), ROWS=tile.rows, WIDTH=tile.width,
        num_warps=tile.num_warps,
    )  # fmt: skip
    return losses


@cross_entropy_.register_fake
def _(logits: Tensor, targets: Tensor, z_loss: float, gradient: bool) -> Tensor:
    return logits.new_empty(logits.shape[0], dtype=wide(logits))


def gradient_by_kernel(logits: Tensor, targets: Tensor, z_loss: float) -> tuple[Tensor, Tensor]:
    """As loss.py's `gradient_in_place`: logits (N,V), targets (N,) -> the loss, summed, and the gradient in place."""
    return cross_entropy_(logits, targets, z_loss, True).sum(), logits


def head_loss_by_kernel(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float = 0.0) -> Tensor:
    """A HeadLoss of loss.py, in chunks: a product with the head, this kernel, and two products with the gradient."""
    if torch.is_grad_enabled():
        return chunked_head_loss(hidden, weight, targets, z_loss, gradient_by_kernel)
    rows = chunk_rows(weight)
    chunks = zip(hidden.split(rows), targets.split(rows), strict=True)
    return torch.stack([cross_entropy_(F.linear(h, weight), t, z_loss, False).sum() for h, t in chunks]).sum()
