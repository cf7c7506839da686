"""EngineSettings: the configuration of an engine, checked when it is made; impossible values are refused.

Not here: the parameters of a single request (core/sampling). Tests: tests/vol3/test_settings.py.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nano_llama.core.errors import UserError
from nano_llama.formats.quantization_scheme import Scheme

RUNNERS = ("auto", "cpu", "torch", "numpy")
DTYPES = ("auto", "float32", "bfloat16", "float16")
KV_DTYPES = ("auto", "float32", "bfloat16", "int8")
UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """
    runner                  what computes the model. "cpu": our compiled kernels; "torch": Volume 2's model, on a GPU
                            or a CPU; "numpy": Volume 1's, in float32. "auto": "torch" on a GPU, otherwise "cpu"
    device                  "auto" (CUDA, else Apple's MPS, else the CPU), "cpu", "cuda", "cuda:1", "mps"
    dtype                   "auto": on a CPU as stored in the file (quantized blocks with int8 activations), on a GPU
                            bfloat16 or float16. "float32", "bfloat16", "float16": all matrices in this type
    quantization            None: as stored; or a scheme such as "int8" or "int4,head=int8"
                            (formats/quantization_scheme.py). cpu only
    kv_cache_dtype          "auto": float32 if all weights are, else bfloat16; or "float32", "bfloat16", "int8". cpu
                            only: the other runners keep keys and values in the model's dtype
    kv_cache_memory         bytes for keys and values, as a number or as "2GiB", "500MB"; allocated once
    max_num_seqs            the most sequences that run at once
    max_num_batched_tokens  the most tokens per step: longer prompts are computed in chunks, beside decoding sequences
    prefix_caching          sequences with the same prefix share its keys and values
    num_threads             CPU threads; None: one per core that this process may use
    """

    runner: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    kv_cache_memory: int | str = "2GiB"
    max_num_seqs: int = 32
    max_num_batched_tokens: int = 512
    prefix_caching: bool = True
    num_threads: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("runner", RUNNERS), ("dtype", DTYPES), ("kv_cache_dtype", KV_DTYPES)):
            check_choice(name, getattr(self, name), known)
        if self.quantization is not None:
            Scheme.parse(self.quantization)
            if self.dtype != "auto":
                raise UserError(
                    f"quantization={self.quantization!r} and dtype={self.dtype!r} both say how weights are stored.",
                    hint='Give one of them, or a dtype for single matrices: quantization="int4,first=float32".',
                )
        _check_positive("max_num_seqs", self.max_num_seqs)
        _check_positive("max_num_batched_tokens", self.max_num_batched_tokens)
        if not isinstance(self.prefix_caching, bool):
            raise UserError(f"prefix_caching={self.prefix_caching!r} must be True or False.")
        if self.num_threads is not None:
            _check_positive("num_threads", self.num_threads)
            processors = os.cpu_count() or 1
            if self.num_threads > 4 * processors:  # a few too many are slow; thousands never get through a barrier
                raise UserError(
                    f"num_threads={self.num_threads} is far beyond this machine's {processors} processors.",
                    hint="Leave it out: one per core is fastest.",
                )
        parse_bytes("kv_cache_memory", self.kv_cache_memory)

    @property
    def kv_cache_bytes(self) -> int:
        return parse_bytes("kv_cache_memory", self.kv_cache_memory)


def check_choice(name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise UserError(f"{name}={value!r} must be one of {', '.join(known)}.")


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
