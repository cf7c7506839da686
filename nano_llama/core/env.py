"""All environment variables, read in this one place.

Not here: settings of a model, a run or a request; those are arguments. Tests: tests/core/test_files.py.

    NANO_LLAMA_CACHE     where downloads and token shards are kept (default: $XDG_CACHE_HOME or ~/.cache, /nano-llama)
    NANO_LLAMA_OFFLINE   1: never open a connection (HF_HUB_OFFLINE is honoured too)
    NANO_LLAMA_CPU       instructions that Volume 3's kernels use: generic, avx2, avxvnni, avx512, amx (default: best)
    OMP_WAIT_POLICY, GOMP_SPINCOUNT    how PyTorch's threads wait for each other (default: a short spin, then sleep)
    NANO_LLAMA_API_KEY   the key that clients of nano-llama serve must send
    CXX                  the C++ compiler that torch.compile calls (default: the first found of g++, clang++)
"""

import os
from pathlib import Path

API_KEY_VARIABLE = "NANO_LLAMA_API_KEY"
SPIN_COUNT = 2_000  # turns of GNU OpenMP's waiting loop before a thread sleeps, instead of 300,000 (dev/LOG.md has why)


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


def sleep_at_barriers() -> None:
    """OpenMP's threads, PyTorch's on a CPU, wait for each other by a short spin and then sleep, unless the user chose.

    GNU's OpenMP spins for milliseconds by default. On a busy machine the thread that is waited for does not run, and
    the spinning keeps it from running. It is read when torch is first imported, so this must be called before.
    """
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


def cxx() -> str | None:
    """The C++ compiler that the user has chosen."""
    return os.environ.get("CXX") or None


def api_key() -> str | None:
    """The key that the server asks its clients for."""
    return os.environ.get(API_KEY_VARIABLE) or None
