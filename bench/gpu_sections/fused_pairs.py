"""The fused kernels, each with its reference and inputs of a real shape: for correctness.py and kernels.py."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gpu_sections.report import Place

Form = Callable[..., Any]


@dataclass
class Pair:
    """kernel and reference: the same function of `inputs`, whose gradients are wanted."""

    kernel: Form
    reference: Form
    inputs: Sequence[Tensor]

    def outcome(self, form: Form, dtype: torch.dtype | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """What it returns for the inputs (in `dtype`), and the gradients for random ones of what it returns."""
        given = [tensor.detach().to(dtype or tensor.dtype).requires_grad_() for tensor in self.inputs]
        made = _listed(form(*given))
        weights = [_noise(one, seed).to(one.dtype) for seed, one in enumerate(made)]
        return made, list(torch.autograd.grad(made, given, weights))

    def both_ways(self, form: Form) -> Callable[[], object]:
        """A forward and a backward pass."""
        given = [tensor.detach().requires_grad_() for tensor in self.inputs]
        weights = [_noise(one, seed).to(one.dtype) for seed, one in enumerate(_listed(form(*given)))]
        return lambda: torch.autograd.grad(_listed(form(*given)), given, weights)

    @property
    def nbytes(self) -> int:
        """Read and written at least: inputs twice, outputs and their gradients, gradients."""
        with torch.no_grad():
            made = sum(one.nbytes for one in _listed(self.reference(*self.inputs)))
        return 3 * sum(tensor.nbytes for tensor in self.inputs) + 2 * made


def _listed(made: Any) -> list[Tensor]:
    return list(made) if isinstance(made, tuple | list) else [made]


def _noise(like: Tensor, seed: int) -> Tensor:
    """The same numbers for every dtype."""
    generator = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(like.shape, generator=generator, device=like.device).bfloat16().float()


def _drawn(place: Place, dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape, device=place.device).to(dtype) for shape in shapes]


# The shapes are those of 350M at 16 x 2,048: N = 32,768 rows. Small: odd ones.


def _rmsnorm(place: Place, dtype: torch.dtype, small: bool) -> Pair:
    from nano_llama.vol2_torch.kernels.rmsnorm import rmsnorm, rmsnorm_reference

    N, D = (77, 200) if small else (32768, 960)
    return Pair(
        lambda x, w: rmsnorm(x, w, 1e-5), lambda x, w: rmsnorm_reference(x, w, 1e-5), _drawn(place, dtype, (N, D), (D,))
    )


def _add_rmsnorm(place: Place, dtype: torch.dtype, small: bool) -> Pair:
    from nano_llama.vol2_torch.kernels.rmsnorm import add_rmsnorm, add_rmsnorm_reference

    N, D = (77, 200) if small else (32768, 960)
    return Pair(
        lambda x, r, w: add_rmsnorm(x, r, w, 1e-5), lambda x, r, w: add_rmsnorm_reference(x, r, w, 1e-5),
        _drawn(place, dtype, (N, D), (N, D), (D,)),
    )  # fmt: skip


def _rope(place: Place, dtype: torch.dtype, small: bool) -> Pair:
    from nano_llama.vol2_torch.kernels.rope import rope, rope_reference

    B, H, G, T, K = (2, 3, 1, 37, 48) if small else (16, 15, 5, 2048, 64)
    angles = torch.arange(T, device=place.device)[:, None] * torch.rand(K // 2, device=place.device)  # (T,K/2)

    def with_angles(form: Form) -> Form:
        return lambda q, k: form(q, k, angles.cos().to(q.dtype), angles.sin().to(q.dtype))

    return Pair(with_angles(rope), with_angles(rope_reference), _drawn(place, dtype, (B, H, T, K), (B, G, T, K)))


def _swiglu(place: Place, dtype: torch.dtype, small: bool) -> Pair:
    from nano_llama.vol2_torch.kernels.swiglu import swiglu, swiglu_reference

    N, F = (77, 200) if small else (32768, 2560)
    return Pair(swiglu, swiglu_reference, _drawn(place, dtype, (N, F), (N, F)))


def _head_loss(place: Place, dtype: torch.dtype, small: bool) -> Pair:
    from nano_llama.vol2_torch.kernels.cross_entropy import head_loss_by_kernel
    from nano_llama.vol2_torch.loss import head_loss

    N, D, V = (77, 40, 301) if small else (8192, 960, 49152)
    hidden, weight = _drawn(place, dtype, (N, D), (V, D))
    targets = torch.randint(V, (N,), device=place.device)
    targets[::7] = -100
    return Pair(
        lambda h, w: head_loss_by_kernel(h, w, targets), lambda h, w: head_loss(h, w, targets),
        (hidden, weight * 0.05),
    )  # fmt: skip


PAIRS: dict[str, Callable[..., Pair]] = {
    "RMSNorm": _rmsnorm,
    "addition and RMSNorm": _add_rmsnorm,
    "RoPE": _rope,
    "SwiGLU": _swiglu,
    "head and cross-entropy": _head_loss,
}
