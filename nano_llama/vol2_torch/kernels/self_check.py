"""Each kernel beside its reference, on the run's device and in its formats, before the run relies on it.

Outputs and gradients of a few rows are compared, of the widths that the run's model has: what is compiled for them is
what the run uses. Triton compiles at the first call, so that a kernel which does not compile shows here too.
Tests: tests/vol2/kernels/test_self_check.py.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.vol2_torch.kernels.cross_entropy import head_loss_by_kernel
from nano_llama.vol2_torch.kernels.flash_attention import flash_attention
from nano_llama.vol2_torch.kernels.rmsnorm import add_rmsnorm, add_rmsnorm_reference
from nano_llama.vol2_torch.kernels.rope import rope, rope_reference
from nano_llama.vol2_torch.kernels.swiglu import swiglu, swiglu_reference
from nano_llama.vol2_torch.loss import head_loss
from nano_llama.vol2_torch.packing import within_documents

# Largest error of a tensor beside its largest number: rounding is below a fourth of it, a wrong term far above.
BOUNDS = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}
ROWS = 40  # no power of two
EPS = 0.5  # of the check's norms: large enough to be seen


class Check(NamedTuple):
    """A kernel and its reference: tensors -> a tensor or some. Inputs are of these shapes, with gradients for all."""

    kernel: Callable[..., Any]
    reference: Callable[..., Any]
    shapes: Sequence[tuple[int, ...]]


def checks(config: LlamaConfig, device: torch.device, dtype: torch.dtype) -> dict[str, Check]:
    """name -> check, of every kernel, for a model of this shape."""
    D, K, G, H = config.hidden_size, config.head_dim, 1, config.group_size
    documents = (torch.arange(2 * ROWS, device=device).view(2, ROWS) // 27).int()  # borders within and at rows' ends
    _, mask = within_documents(documents)
    angles = torch.arange(ROWS * (K // 2), dtype=torch.float32, device=device).view(ROWS, K // 2)
    cos, sin = angles.cos(), angles.sin()  # (T,K/2)
    targets = torch.arange(ROWS, device=device) % config.vocab_size
    targets[::3] = IGNORE_INDEX
    return {
        "flash_attention": Check(
            lambda q, k, v: flash_attention(q, k, v, causal=True, documents=documents),
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True),
            [(2, H, ROWS, K), (2, G, ROWS, K), (2, G, ROWS, K)],
        ),
        "rmsnorm": Check(
            lambda x, stream, weight: add_rmsnorm(x, stream.float(), weight.float(), EPS, dtype),
            lambda x, stream, weight: add_rmsnorm_reference(x, stream, weight, EPS),
            [(ROWS, D), (ROWS, D), (D,)],
        ),
        "rope": Check(
            lambda q, k: rope(q, k, cos, sin),
            lambda q, k: rope_reference(q, k, cos, sin),
            [(2, H, ROWS, K), (2, G, ROWS, K)],
        ),
        "swiglu": Check(swiglu, swiglu_reference, [(ROWS, config.intermediate_size)] * 2),
        "cross_entropy": Check(
            lambda hidden, weight: head_loss_by_kernel(hidden, weight, targets, 1e-2),
            lambda hidden, weight: head_loss(hidden, weight, targets, 1e-2),
            [(ROWS, 16), (config.vocab_size, 16)],
        ),
    }


def problem(check: Check, device: torch.device, dtype: torch.dtype) -> str:
    """Why the kernel is not to be used here; empty where it agrees with its reference. Raises what it refuses."""
    try:
        error = difference(check, device, dtype)
    except UserError:
        raise
    except Exception as failure:  # whatever a compiler or a driver raises
        return f"it does not run here ({type(failure).__name__}: {str(failure).strip().splitlines()[0][:200]})"
    bound = BOUNDS[dtype]
    return "" if error <= bound else f"it differs from its plain form by {error:.1e}, of {bound:.0e} that may be"


def difference(check: Check, device: torch.device, dtype: torch.dtype) -> float:
    """The largest relative error of outputs and gradients, beside the reference in float32; NaN where there is one."""
    generator = torch.Generator().manual_seed(0)  # the run's own generators are left alone
    inputs = [torch.randn(shape, generator=generator).to(device, dtype) for shape in check.shapes]
    found, wanted = (
        outputs_and_gradients(function, [x.to(kind, copy=True).requires_grad_() for x in inputs])
        for function, kind in ((check.kernel, dtype), (check.reference, torch.float32))
    )
    errors = [(a.float() - b).abs().max() / b.abs().max().clamp(min=1e-12) for a, b in zip(found, wanted, strict=True)]
    return torch.stack(errors).max().item()


def outputs_and_gradients(function: Callable[..., Any], inputs: list[Tensor]) -> list[Tensor]:
    with torch.enable_grad():
        outputs = function(*inputs)
        outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
        # another weight for each number, so that a sum that should be another one shows
        loss = sum((y.float() * weights_like(y)).sum() for y in outputs)
        return [*(y.detach() for y in outputs), *torch.autograd.grad(loss, inputs)]


def weights_like(y: Tensor) -> Tensor:
    return torch.linspace(-1.0, 2.0, y.numel(), device=y.device).sin().view(y.shape)
