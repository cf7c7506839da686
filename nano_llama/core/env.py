"""All environment variables, read in this one place.

Not here: settings of a model, a run or a request; those are arguments. Tests: tests/core/test_files.py.

    NANO_LLAMA_CACHE     where downloads and token shards are kept (default: $XDG_CACHE_HOME or ~/.cache, /nano-llama)
    NANO_LLAMA_OFFLINE   1: never open a connection (HF_HUB_OFFLINE is honoured too)
    NANO_LLAMA_CPU       instructions that Volume 3's kernels use: generic, avx2, avxvnni, avx512, amx (default: best)
    CXX                  the C++ compiler that torch.compile calls (default: the first found of g++, clang++)
"""

import os
from pathlib import Path


def cache_dir() -> Path:
    """The folder for downloads and token shards. The first write creates it."""
    own = os.environ.get("NANO_LLAMA_CACHE")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "nano-llama"


def offline() -> bool:
    """True when the user has disabled network access."""
    return any(
        os.environ.get(name, "0").lower() in ("1", "true", "yes") for name in ("NANO_LLAMA_OFFLINE", "HF_HUB_OFFLINE")
    )


def cpu_isa() -> str | None:
    """The instructions that Volume 3's kernels should use; None: the best that the processor has."""
    return os.environ.get("NANO_LLAMA_CPU") or None


def cxx() -> str | None:
    """The C++ compiler that the user has chosen."""
    return os.environ.get("CXX") or None
