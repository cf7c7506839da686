"""Kernels alone, timed by CUDA events: flash attention beside SDPA's own, the fused kernels beside their references."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu_sections.fused_pairs import PAIRS
from gpu_sections.measure import COMPILERS, in_processes, median_ms, relative_error
from gpu_sections.report import Place, Report, needs_triton
from gpu_sections.table import FLASH_BACKWARD, FLASH_FORWARD, SDPA_ERRORS

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

# queries, keys, warps, stages of a KernelConfig
CANDIDATES = {
    "forward": ((128, 64, 4, 3), (128, 64, 8, 3), (128, 128, 4, 2), (64, 64, 4, 4), (128, 32, 4, 4)),
    "dq": ((64, 64, 4, 3), (128, 64, 4, 2), (128, 32, 4, 3), (128, 128, 8, 2)),
    "dkdv": ((64, 64, 4, 3), (32, 128, 4, 3), (128, 64, 8, 2), (128, 128, 8, 2)),
}


def flash(place: Place, report: Report) -> None:
    """Causal, bf16, T = 4,096, head dims 64 and 128, beside SDPA pinned to its flash kernel."""
    needs_triton()
    from nano_llama.vol2_torch.kernels import flash_attention

    for K in (64, 128):
        with report.attempt(f"flash_attention, K = {K}"):
            compare(place, report, K, {"ours": flash_attention}, *qkv(place, K))


def qkv(place: Place, K: int) -> list[Tensor]:
    """q, k, v and the output's gradient, (B,H,T,K) each."""
    B, H, T = place.pick((4, 2048 // K, 4096), (1, 2, 32))
    dtype = place.pick(torch.bfloat16, torch.float32)
    return [torch.randn(B, H, T, K, device=place.device).to(dtype) for _ in range(4)]


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
        report.note(f"K = {K}, {part}, ms", times)
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


def flash_tiles(place: Place, report: Report) -> None:
    """Other tiles than those in vol2_torch/kernels/flash_configs.py, kernel by kernel: the fastest belong there."""
    needs_triton()
    from nano_llama.vol2_torch.kernels import flash_attention
    from nano_llama.vol2_torch.kernels.flash_configs import KernelConfig, config_for, configs_set_to

    cases = [(place, K, kernel, one) for K in (64, 128) for kernel, some in CANDIDATES.items() for one in some]
    in_processes(compiled_once, cases if not place.rehearse else [], place.pick(COMPILERS, 0))
    for K in (64, 128):
        q, k, v, dy = qkv(place, K)
        forward = partial(flash_attention, q, k, v)
        held = [tensor.detach().requires_grad_() for tensor in (q, k, v)]
        for kernel, candidates in CANDIDATES.items():
            standing = config_for(kernel, q.dtype, K)
            times = {}
            for tiles in (standing, *(KernelConfig(*one) for one in place.pick(candidates, candidates[:1]))):
                if place.seconds_left() < 6:
                    report.errors.append(f"no time for {kernel} {tuple(tiles)}, K = {K}")
                    break
                try:
                    with configs_set_to(**{kernel: tiles}):
                        work = forward
                        if kernel != "forward":
                            y = flash_attention(*held)
                            work = partial(torch.autograd.grad, y, held, dy, retain_graph=True)
                        times[tuple(tiles)] = median_ms({"it": work}, place.device, *place.pick((5, 5), (1, 1)))["it"]
                except Exception as error:  # too large for the card's shared memory, say
                    times[tuple(tiles)] = f"{type(error).__name__}: {str(error)[:80]}"
            measured = {tiles: ms for tiles, ms in times.items() if isinstance(ms, float)}
            best = min(measured, key=lambda tiles: measured[tiles])
            report.note(
                f"{kernel}, K = {K}, ms",
                {str(tiles): ms for tiles, ms in times.items()},
            )
            what = f"flash {kernel}, K = {K}: the table's tiles / the fastest tried, time"
            beside = f"{best}: {measured[best]:.3f} ms"
            report.row(what, measured[tuple(standing)] / measured[best], "x", beside=beside)


def compiled_once(place: Place, K: int, kernel: str, candidate: tuple[int, int, int, int]) -> None:
    """Run it on few numbers: the measuring process then finds it in Triton's cache."""
    from nano_llama.vol2_torch.kernels import flash_attention
    from nano_llama.vol2_torch.kernels.flash_configs import KernelConfig, configs_set_to

    q, k, v, dy = (tensor[:1, :, :512].detach().contiguous() for tensor in qkv(place, K))
    with configs_set_to(**{kernel: KernelConfig(*candidate)}):
        held = [tensor.requires_grad_() for tensor in (q, k, v)]
        torch.autograd.grad(flash_attention(*held), held, dy)


def fused_speed(place: Place, report: Report) -> None:
    """The fused kernels beside their references, eager and compiled by inductor: forward and backward together."""
    needs_triton()
    for name, make in PAIRS.items():
        with report.attempt(name):
            pair = make(place, place.pick(torch.bfloat16, torch.float32), small=place.rehearse)
            compiled = torch.compile(pair.reference, dynamic=False) if not place.rehearse else pair.reference
            forms = {"kernel": pair.kernel, "reference": pair.reference, "compiled": compiled}
            works = {form: pair.both_ways(function) for form, function in forms.items()}
            ms = median_ms(works, place.device, *place.pick((10, 7), (1, 1)))
            bandwidth = pair.nbytes / ms["kernel"] / 1e9
            report.row(f"{name}, forward and backward / inductor's, speed", ms["compiled"] / ms["kernel"], "x",
                       beside=f"{ms['kernel']:.3f} ms, {bandwidth:.2f} TB/s of its inputs, outputs and gradients; "
                       f"compiled {ms['compiled']:.3f}, eager {ms['reference']:.3f} ms")  # fmt: skip
