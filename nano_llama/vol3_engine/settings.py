"""EngineSettings: how an engine is set up, checked once. What it cannot honour it refuses by name.

Not here: what a single request asks for (core/sampling). Tests: tests/vol3/test_settings.py.
"""

import re
from dataclasses import dataclass
from typing import Any

from nano_llama.core.errors import UserError

DTYPES = ("auto", "float32", "bfloat16", "float16")
UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """
    device            "auto" (CUDA, else Apple's MPS, else the CPU), "cpu", "cuda", "cuda:1", "mps"
    dtype             "auto" (float32 on the CPU, bfloat16 or float16 on a GPU), "float32", "bfloat16", "float16"
    quantization      None; other values are refused until the engine has kernels for them
    max_num_seqs      sequences that run together, at most
    kv_cache_memory   bytes for keys and values, as a number or as "2GiB", "500MB"; a call never takes more
    num_threads       CPU threads inside a call; None leaves PyTorch's own choice
    """

    device: str = "auto"
    dtype: str = "auto"
    quantization: str | None = None
    max_num_seqs: int = 32
    kv_cache_memory: int | str = "2GiB"
    num_threads: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UserError(f"dtype={self.dtype!r} must be one of {', '.join(DTYPES)}.")
        if self.quantization is not None:
            raise UserError(
                f"quantization={self.quantization!r} is not supported yet.",
                hint="Leave it out: a quantized .gguf is read as it is, and computed in `dtype`.",
            )
        _check_positive("max_num_seqs", self.max_num_seqs)
        if self.num_threads is not None:
            _check_positive("num_threads", self.num_threads)
        parse_bytes("kv_cache_memory", self.kv_cache_memory)

    @property
    def kv_cache_bytes(self) -> int:
        return parse_bytes("kv_cache_memory", self.kv_cache_memory)


def parse_bytes(name: str, value: Any) -> int:
    """512, "512", "1.5 GiB" (2^30), "500MB" (10^6) -> whole bytes, at least 1. Raises UserError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(value)) if not isinstance(value, bool) else None
    unit = UNITS.get(match[2].lower()) if match else None
    size = int(float(match[1]) * unit) if match and unit else 0
    if size < 1:
        raise UserError(f'{name}={value!r} must be a positive size such as "2GiB", "500MB" or a number of bytes.')
    return size


def _check_positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{name}={value!r} must be a whole number of at least 1.")
