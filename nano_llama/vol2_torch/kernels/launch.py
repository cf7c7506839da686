"""Whether a Triton kernel can be launched on these tensors, and what to do where it cannot.

A kernel runs where its tensors are: compiled on a CUDA device or, with TRITON_INTERPRET=1, interpreted on the CPU, one
program after another in NumPy. The interpreter is for tests: it is exact in float64, float32 and float16, needs
triton 3.7.1 or later, and takes about 0.3 ms per operation of a program, whatever the tile's size.
Tests: tests/vol2/kernels/test_launch.py.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from nano_llama.core.errors import EnvironmentFault, UserError, import_extra

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def load_triton(feature: str) -> Any:
    """The module triton. Raises EnvironmentFault naming the extra where it is not installed."""
    return import_extra("triton", "triton", feature)


@cache
def is_interpreted() -> bool:
    """Whether kernels run in Triton's interpreter. Triton decides when a kernel is defined, so it is asked once."""
    return bool(load_triton("A Triton kernel").knobs.runtime.interpret)


def check_tensors(feature: str, *tensors: Tensor) -> None:
    """Raise unless these tensors, of one device and one floating dtype, can be given to a kernel in this process."""
    device, dtype = tensors[0].device, tensors[0].dtype
    if any(tensor.device != device for tensor in tensors):
        raise UserError(
            f"{feature}: its tensors are on {', '.join(sorted({str(t.device) for t in tensors}))}; expected one device."
        )
    if any(tensor.dtype != dtype for tensor in tensors):
        raise UserError(
            f"{feature}: its tensors are {', '.join(sorted({str(t.dtype) for t in tensors}))}; expected one dtype.",
            hint="Convert them with .to(dtype), or call it within torch.autocast.",
        )
    if dtype not in DTYPES:
        raise UserError(f"{feature} is given {dtype}; expected {', '.join(str(known) for known in DTYPES)}.")
    load_triton(feature)
    if is_interpreted():
        _check_interpreted(feature, device, dtype)
    elif device.type != "cuda":
        raise EnvironmentFault(
            f"{feature} is a Triton kernel, which runs on a CUDA device; these tensors are on {device}.",
            hint="To try it on the CPU, slowly, start Python with TRITON_INTERPRET=1.",
        )


def _check_interpreted(feature: str, device: torch.device, dtype: torch.dtype) -> None:
    if device.type not in ("cpu", "cuda"):
        raise EnvironmentFault(f"{feature}: Triton's interpreter reads CPU and CUDA tensors; these are on {device}.")
    if dtype == torch.bfloat16:
        raise UserError(
            f"{feature}: Triton's interpreter multiplies bfloat16 matrices wrongly and truncates when it rounds.",
            hint="Use float32 or float16 here; on a CUDA device, without TRITON_INTERPRET, bfloat16 is right.",
        )
