"""Timing on a card: CUDA events around several calls, after a warm-up, the median of turns; and a card's two limits.

On a CPU, where a rehearsal runs, the wall clock stands for the events.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
WARM_UP, TURNS = 3, 7
COMPILERS = 12  # processes that compile at once: such a machine has 16 cores


def median_ms(
    functions: Mapping[str, Callable[[], object]], device: torch.device, calls: int = 5, turns: int = TURNS
) -> dict[str, float]:
    """Milliseconds per call. They take turns, so that all see the same card."""
    for function in functions.values():
        for _ in range(min(WARM_UP, turns)):
            function()
    found: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(turns):
        for name, function in functions.items():
            found[name].append(_ms(function, device, calls))
    return {name: statistics.median(times) for name, times in found.items()}


def _ms(function: Callable[[], object], device: torch.device, calls: int) -> float:
    if device.type != "cuda":
        begin = time.perf_counter()
        for _ in range(calls):
            function()
        return 1e3 * (time.perf_counter() - begin) / calls
    begin_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin_event.record()
    for _ in range(calls):
        function()
    end_event.record()
    end_event.synchronize()
    return begin_event.elapsed_time(end_event) / calls


def wall_seconds(function: Callable[[], object], device: torch.device) -> float:
    """Of a whole piece of work, the host's part included."""
    synchronize(device)
    begin = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - begin


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_peak(device: torch.device) -> float:
    """FLOP/s of a bf16 product of random numbers: of equal ones a card makes more, as it draws less power."""
    n = 8192 if device.type == "cuda" else 256
    a, b = (torch.randn(n, n, device=device).bfloat16() for _ in range(2))
    return 2e3 * n**3 / median_ms({"product": lambda: a @ b}, device)["product"]


def copy_bandwidth(device: torch.device) -> float:
    """bytes/s, those read and those written."""
    source = torch.empty(2**32 if device.type == "cuda" else 2**22, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2e3 * source.nbytes / median_ms({"copy": lambda: target.copy_(source)}, device)["copy"]


def start_afresh(device: torch.device) -> None:
    """Memory that nobody holds is given back, and the peak is counted from here."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gb(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0


def in_processes(function: Callable[..., T], cases: Sequence[tuple], processes: int) -> list[T | Exception]:
    """function(*case) of each case, side by side, as Triton compiles a kernel for seconds on one core; 0: one by one.

    An exception takes the place of a result.
    """
    if not processes:
        return [_tried(function, *case) for case in cases]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_tried, function, *case) for case in cases]
        return [_tried(future.result) for future in futures]


def _tried(function: Callable[..., T], *case: object) -> T | Exception:
    try:
        return function(*case)
    except Exception as error:
        return RuntimeError(f"{type(error).__name__}: {error}")  # others may not travel between processes


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """max|a-b| / max|b|, in float64."""
    found, wanted = found.detach().double(), wanted.detach().double()
    return float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))
