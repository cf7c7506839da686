"""How a step's work reaches the device: on a GPU as recorded CUDA graphs, with copies beside the computation.

A small model's kernels each take less time than it takes to launch them from Python. A CUDA graph is a recording of
kernels, with the addresses that they read and write, that the driver launches as one. The Python code does not run
again: what differs from step to step must lie in tensors that stay where they are (graph_step.py).
Tests: tests/vol2/test_launcher.py.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nano_llama.training.backend import Notice

Work = Callable[[], None]

WARM_UPS = 2  # calls before the recording: libraries load their kernels, optimizers make their state


class Launcher(Protocol):
    """Puts arrays on the device, runs work there, and fetches numbers. `fetch` alone waits."""

    def put(self, arrays: Sequence[np.ndarray]) -> list[Tensor]: ...

    def warm_up(self, work: Work) -> None:
        """Run it once, as it is."""
        ...

    def record(self, work: Work) -> Work:
        """What does the same as `work` each time it is called, with the tensors of now."""
        ...

    def send(self, figures: Tensor) -> None:
        """Start to copy these, (figures,), to the host."""
        ...

    def fetch(self) -> list[float]:
        """What was sent last."""
        ...


class PlainLauncher:
    """The reference: no recording, no waiting, no copies beside anything."""

    def __init__(self, place: torch.device):
        self.place, self.figures = place, torch.empty(0)

    def put(self, arrays: Sequence[np.ndarray]) -> list[Tensor]:
        return [torch.from_numpy(array).to(self.place) for array in arrays]

    def warm_up(self, work: Work) -> None:
        work()

    def record(self, work: Work) -> Work:
        return work

    def send(self, figures: Tensor) -> None:
        self.figures = figures.clone()

    def fetch(self) -> list[float]:
        return self.figures.tolist()


class CudaLauncher:
    """Recordings share their memory, as they run one after the other."""

    def __init__(self, place: torch.device):
        self.place, self.pool = place, torch.cuda.graph_pool_handle()
        self.computing, self.copying = torch.cuda.Stream(place), torch.cuda.Stream(place)
        self.figures, self.sent = torch.empty(0), torch.cuda.Event()

    def put(self, arrays: Sequence[np.ndarray]) -> list[Tensor]:
        """Through pinned memory, which is not used again before its copy has ended: torch keeps account of that."""
        with torch.cuda.stream(self.copying):
            tensors = [torch.from_numpy(array).pin_memory().to(self.place, non_blocking=True) for array in arrays]
        current = torch.cuda.current_stream(self.place)
        current.wait_stream(self.copying)
        for tensor in tensors:
            tensor.record_stream(current)  # its memory is the other stream's, which must not take it back meanwhile
        return tensors

    def warm_up(self, work: Work) -> None:
        current = torch.cuda.current_stream(self.place)
        self.computing.wait_stream(current)
        with torch.cuda.stream(self.computing):
            work()
        current.wait_stream(self.computing)

    def record(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        # thread_local: what another thread does meanwhile, as writing a checkpoint, does not spoil the recording
        with torch.cuda.graph(graph, pool=self.pool, stream=self.computing, capture_error_mode="thread_local"):
            work()
        return graph.replay

    def send(self, figures: Tensor) -> None:
        if len(self.figures) != len(figures):
            self.figures = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True)
        self.figures.copy_(figures, non_blocking=True)
        self.sent.record()

    def fetch(self) -> list[float]:
        self.sent.synchronize()
        return self.figures.tolist()


class Recorded:
    """Work whose first WARM_UPS calls run it as it is; then it is recorded. Where that fails it runs on as it is."""

    def __init__(self, work: Work, launcher: Launcher, notice: Notice):
        self.work, self.launcher, self.notice = work, launcher, notice
        self.calls, self.failed = 0, False
        self.again: Work | None = None

    def __call__(self) -> None:
        self.calls += 1
        if self.calls <= WARM_UPS:
            return self.launcher.warm_up(self.work)
        if self.again is None:
            self.again = self._recorded()
        return self.again()

    def _recorded(self) -> Work:
        try:
            return self.launcher.record(self.work)
        except RuntimeError as error:  # CUDA's, for what a graph cannot hold
            cause = error.__context__ or error  # after it, leaving the recording fails too
            problem = str(cause).strip().splitlines()[0][:200]
            self.notice(f"The step cannot be recorded as a graph ({problem}): it trains on without, which is slower.")
            self.failed = True
            return self.work
