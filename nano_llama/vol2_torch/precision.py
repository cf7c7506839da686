"""Which number format a model trains in: float32, or half precision for the matrix products.

Weights, gradients, optimizer, norms, softmax and loss stay in float32 whatever is chosen ("mixed precision",
Micikevicius et al. 2018, arXiv 1710.03740): only factors and results of matrix products, and what the MLP computes
between two of them, are rounded to 8 (bf16) or 11 (fp16) significant bits. fp16's range ends at 65,504 and 6e-8, so its
loss is scaled (loss_scaling.py); bf16 has float32's range. Tests: tests/vol2/test_precision.py.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

BF16_MIN_WIDTH = 128  # D of the smallest model that bf16 makes faster on a CPU; below, converting costs more
FLOAT32_WINDOW = 128  # tokens: torch's attention in half precision takes 2 to 4 times as long on a CPU up to here
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """A format on a device's type: `with precision.autocast(): loss = ...`"""

    name: str  # fp32, bf16, fp16
    device: str  # cpu, cuda, mps

    @property
    def dtype(self) -> torch.dtype:
        """The type of the factors of matrix products."""
        return DTYPES[self.name]

    @property
    def rounding(self) -> float:
        """The distance from 1 to the next number."""
        return torch.finfo(self.dtype).eps

    def attention_bytes(self, T: int) -> int:
        """The size of a number that attention over a window of T reads or writes."""
        return 4 if self.device == "cpu" and T <= FLOAT32_WINDOW else self.dtype.itemsize

    def autocast(self) -> AbstractContextManager:
        """Matrix products inside round their factors and results."""
        return nullcontext() if self.name == "fp32" else torch.autocast(self.device, self.dtype)


def resolve_precision(name: str, device: torch.device, width: int) -> Precision:
    """The format that `name` means on `device`, for a model of this width (D).

    "auto": bf16 where the processor multiplies it natively (GPUs from NVIDIA's Ampere on; CPUs with AVX512-BF16 or AMX,
    for models wide enough), fp16 on older GPUs, else fp32: a processor that emulates bf16 is slower with it.
    """
    return Precision(_best(device, width) if name == "auto" else name, device.type)


def _best(device: torch.device, width: int) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and width >= BF16_MIN_WIDTH:
        features = cpu_features()
        return "bf16" if features.get("amx_bf16") or features.get("avx512_bf16") else "fp32"
    return "fp32"


def product_dtype(x: torch.Tensor) -> torch.dtype:
    """The type in which a product of x is computed here: autocast's where it is on, else x's own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def attends_in_float32(device: str, T: int) -> bool:
    """Whether attention over a window of T computes in float32 under autocast: half precision is slower there."""
    return device == "cpu" and T <= FLOAT32_WINDOW and torch.is_autocast_enabled(device)


def cpu_features() -> dict[str, object]:
    """The CPU's capabilities, by torch's names; empty where this torch has none."""
    return dict(getattr(torch.cpu, "get_capabilities", dict)())
