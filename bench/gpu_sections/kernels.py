"""Kernels alone, timed by CUDA events: flash attention beside SDPA's own, the fused kernels beside their references."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu_sections.correctness import needs_triton
from gpu_sections.measure import median_ms, relative_error
from gpu_sections.report import Place, Report
from gpu_sections.table import FLASH_BACKWARD, FLASH_FORWARD, SDPA_ERRORS

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def flash(place: Place, report: Report) -> None:
    """Causal, bf16, T = 4,096, head dims 64 and 128, beside SDPA pinned to its flash kernel."""
    needs_triton()
    from nano_llama.vol2_torch.kernels import flash_attention

    for K in (64, 128):
        B, H, T = place.pick((4, 2048 // K, 4096), (1, 2, 32))
        q, k, v, dy = (
            torch.randn(B, H, T, K, device=place.device).to(place.pick(torch.bfloat16, torch.float32)) for _ in range(4)
        )
        with report.attempt(f"flash_attention, K = {K}"):
            compare(place, report, K, {"ours": lambda *qkv: flash_attention(*qkv, causal=True)}, q, k, v, dy)


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if q.device.type != "cuda":
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def compare(
    place: Place, report: Report, K: int, forms: dict[str, Attend], q: Tensor, k: Tensor, v: Tensor, dy: Tensor
) -> None:
    """Speed of the fastest of ours over SDPA's, forward and backward, and the errors of both."""
    B, H, T, _ = q.shape
    flops = 2.0 * B * H * T * T * K  # of the two products, half of them masked
    calls, turns = place.pick((5, 7), (1, 1))
    forms = {**forms, "SDPA": sdpa}
    with torch.no_grad():
        forward = median_ms({name: lambda f=f: f(q, k, v) for name, f in forms.items()}, place.device, calls, turns)
    q, k, v = (tensor.detach().requires_grad_() for tensor in (q, k, v))
    made = {name: f(q, k, v) for name, f in forms.items()}
    backward = median_ms(
        {name: lambda y=y: torch.autograd.grad(y, (q, k, v), dy, retain_graph=True) for name, y in made.items()},
        place.device, calls, turns,
    )  # fmt: skip
    for part, times, work, bar in (
        ("forward", forward, flops, FLASH_FORWARD), ("backward", backward, 2.5 * flops, FLASH_BACKWARD),
    ):  # fmt: skip
        ours = min((name for name in times if name != "SDPA"), key=lambda name: times[name])
        report.note(f"K = {K}, {part}, ms", {name: round(ms, 4) for name, ms in times.items()})
        rates = f"{ours}: {work / times[ours] / 1e9:.0f} TFLOP/s; SDPA {work / times['SDPA'] / 1e9:.0f}"
        what = f"flash {part}, K = {K}, T = {T:,}, causal, bf16 / SDPA's flash, speed"
        report.row(what, times["SDPA"] / times[ours], "x", bar, rates)
    errors = {name: errors_of(f, q, k, v, dy) for name, f in forms.items()}
    for part in ("forward", "backward"):
        worst = max((name for name in errors if name != "SDPA"), key=lambda name: errors[name][part])
        report.row(f"flash {part}, K = {K}: error against float64 / SDPA's",
                   errors[worst][part] / max(errors["SDPA"][part], 1e-12), "x", SDPA_ERRORS,
                   f"{errors[worst][part]:.1e} and {errors['SDPA'][part]:.1e}")  # fmt: skip


def errors_of(attend: Attend, *tensors: Tensor) -> dict[str, float]:
    """Relative, of the first two heads of the first text: float64 has no room for more."""
    q, k, v, dy = (tensor[:1, :2].detach().clone() for tensor in tensors)

    def outcome(attend: Attend, *qkv: Tensor, dy: Tensor) -> list[Tensor]:
        held = [tensor.requires_grad_() for tensor in qkv]
        y = attend(*held)
        return [y, *torch.autograd.grad(y, held, dy)]

    def written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        future = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).triu(1)
        return (q @ k.mT / q.shape[3] ** 0.5).masked_fill(future, -torch.inf).softmax(-1) @ v

    wanted = outcome(written_out, q.double(), k.double(), v.double(), dy=dy.double())
    found = outcome(attend, q, k, v, dy=dy)
    errors = [relative_error(one, exact) for one, exact in zip(found, wanted, strict=True)]
    return {"forward": errors[0], "backward": max(errors[1:])}


def fused_speed(place: Place, report: Report) -> None:
    """The fused kernels beside their references, eager and compiled by inductor."""
    needs_triton()
    found: dict[str, Any] = {}
    raise NotImplementedError(found)
