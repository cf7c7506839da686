"""A linear layer whose matrix is frozen, with an adapter beside it: LoRA, rsLoRA or DoRA; on quantized blocks, QLoRA.

LoRA's gradients are derived in vol1_numpy/ops/lora_linear.py. Tests: tests/vol2/finetune/test_lora.py.
Shapes: W (out, in), A (r, in), B (out, r), DoRA's magnitude m (out,).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nano_llama.core.lora import LoraConfig
from nano_llama.vol2_torch.precision import product_dtype
from nano_llama.vol2_torch.quantized_linear import QuantizedMatrix, dense, in_workspace, linear


class LoraLinear(nn.Module):
    """y = x W^T + scale x A^T B^T. With DoRA every row of W + scale B A is rescaled to the length m, which is learned.

    `weight` is that of the layer that is adapted, a parameter or blocks (quantized_linear.py), under the same name. The
    adapter has float32 beside a base in half precision: its steps are far smaller than what bfloat16 resolves.
    DoRA: Liu et al. 2024 (arXiv 2402.09353), eq. 5; as in its section 4.3 no gradient flows through the rows' lengths.
    """

    def __init__(self, weight: nn.Parameter | QuantizedMatrix, lora: LoraConfig):
        """A and B are left to be filled; m starts as the lengths of W's rows."""
        super().__init__()
        self.weight, self.lora = weight, lora
        wide = torch.promote_types(weight.dtype, torch.float32)
        self.lora_A = nn.Parameter(torch.zeros(lora.r, weight.shape[1], dtype=wide, device=weight.device))
        self.lora_B = nn.Parameter(torch.zeros(weight.shape[0], lora.r, dtype=wide, device=weight.device))
        if lora.dora:
            self.lora_magnitude_vector = nn.Parameter(dense(weight).detach().to(wide).norm(dim=1))

    def forward(self, x: Tensor) -> Tensor:  # (..., in) -> (..., out)
        dtype = product_dtype(x)
        y = (
            self.in_steps(x)
            if self._needs_steps(x)
            else _LoraProduct.apply(
                x.to(dtype), self.lora_A.to(dtype), self.lora_B.to(dtype), self.weight, self.lora.scale
            )
        )
        if self.lora.dora:
            y = y * self._rescaling(self._sum())
        return y.to(dtype)

    def in_steps(self, x: Tensor) -> Tensor:  # (..., in) -> (..., out)
        """x W^T + scale x A^T B^T, step by step: the plain form of _LoraProduct, and what that does not do."""
        entering = F.dropout(x, self.lora.dropout, self.training).to(self.lora_A.dtype)
        return linear(x, self.weight) + self.lora.scale * F.linear(F.linear(entering, self.lora_A), self.lora_B)

    def _needs_steps(self, x: Tensor) -> bool:
        """For dropout, a W that is trained too, and half precision without autocast, where the adapter stays wide."""
        half = x.dtype != self.lora_A.dtype and not torch.is_autocast_enabled(x.device.type)
        trained = isinstance(self.weight, Tensor) and self.weight.requires_grad
        return half or trained or bool(self.lora.dropout and self.training)

    def merged_weight(self) -> Tensor:  # (out, in)
        """The one matrix that the layer multiplies by, differentiable, in the adapter's precision."""
        merged = self._sum()
        return merged * self._rescaling(merged)[:, None] if self.lora.dora else merged

    def _sum(self) -> Tensor:  # W + scale B A
        return dense(self.weight) + self.lora.scale * (self.lora_B @ self.lora_A)

    def _rescaling(self, merged: Tensor) -> Tensor:  # (out, in) -> (out,)
        """m over the rows' lengths; a row of zeros, such as a padded vocabulary has, stays one."""
        lengths = merged.detach().norm(dim=1)
        return self.lora_magnitude_vector / lengths.clamp(min=torch.finfo(lengths.dtype).tiny)


class _LoraProduct(torch.autograd.Function):
    """LoraLinear.in_steps with fewer passes over x and y, of which x is kept once: a product adds to what is there.

    The derivation is in vol1_numpy/ops/lora_linear.py.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, A: Tensor, B: Tensor, weight: Tensor | QuantizedMatrix, scale: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (N, in)
        narrow = rows @ A.T  # (N, r)
        y = F.linear(rows, in_workspace(weight, x.dtype)).addmm_(narrow, B.T, alpha=scale)  # (N, out)
        ctx.save_for_backward(rows, A, B, narrow)
        ctx.weight, ctx.scale, ctx.shape = weight, scale, x.shape
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        rows, A, B, narrow = ctx.saved_tensors
        dy = dy.reshape(-1, dy.shape[-1])  # (N, out)
        dnarrow = (dy @ B).mul_(ctx.scale)  # (N, r)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = (dy @ in_workspace(ctx.weight, dy.dtype)).addmm_(dnarrow, A).view(ctx.shape)
        return dx, dnarrow.T @ rows, (dy.T @ narrow).mul_(ctx.scale), None, None
