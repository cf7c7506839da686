"""The device that a run of Volume 2 computes on: memory, threads, and the peak that its MFU is measured against.

device.py says which device a name means. Tests: tests/vol2/test_trainer.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nano_llama.core.machine import available_bytes, peak_resident_bytes
from nano_llama.training.backend import Notice
from nano_llama.training.neighbours import free_threads
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.determinism import deterministic_algorithms, is_deterministic
from nano_llama.vol2_torch.peak_flops import measured_peak


def choose_threads(settings: TrainSettings, place: torch.device, notice: Notice) -> int:
    """How many threads compute on the CPU; 0: as many as PyTorch takes by itself.

    A run by the clock takes those that other programs leave free when it starts, also when it is resumed. A run by
    steps does not look: its settings alone decide on its bits. Nor is the choice made again later, as a compiled model
    would have to be compiled again.
    """
    if settings.num_threads or settings.max_minutes is None or place.type != "cpu":
        return settings.num_threads
    return free_threads(torch.get_num_threads(), notice)


@dataclass(frozen=True)
class TorchDevice:
    """A Device of training/backend.py. dtype: of the run's matrix products; num_threads: on the CPU, 0: as they are.

    determinism: the setting, "auto", "on" or "off".
    """

    place: torch.device
    dtype: torch.dtype
    num_threads: int = 0
    determinism: str = "auto"

    @property
    def name(self) -> str:
        return str(self.place)

    @property
    def deterministic(self) -> bool:
        return is_deterministic(self.determinism, self.place)

    @property
    def is_cuda(self) -> bool:
        return self.place.type == "cuda"

    def available_memory(self) -> int | None:
        return torch.cuda.mem_get_info(self.place)[0] if self.is_cuda else available_bytes()

    def peak_memory(self) -> int:
        return torch.cuda.max_memory_allocated(self.place) if self.is_cuda else peak_resident_bytes()

    def peak_flops(self) -> float:
        return measured_peak(self.place, self.dtype)

    @contextmanager
    def computing(self) -> Iterator[None]:
        before = torch.get_num_threads()
        if self.num_threads:
            torch.set_num_threads(self.num_threads)
        try:
            with deterministic_algorithms() if self.determinism == "on" else nullcontext():
                yield
        finally:
            torch.set_num_threads(before)

    def tensor(self, array: np.ndarray | Tensor) -> Tensor:
        """The array, on this device; a tensor lies there already."""
        if isinstance(array, Tensor):
            return array
        tensor = torch.from_numpy(array)
        if self.is_cuda:  # from pinned memory the copy overlaps with the computation
            return tensor.pin_memory().to(self.place, non_blocking=True)
        return tensor.to(self.place)
