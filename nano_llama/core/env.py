"""All environment variables, read in this one place.

Not here: settings of a model, a run or a request; those are arguments. Tests: tests/core/test_files.py.

    NANO_LLAMA_CACHE     where downloads and token shards are kept (default: $XDG_CACHE_HOME or ~/.cache, /nano-llama)
    NANO_LLAMA_OFFLINE   1: never open a connection (HF_HUB_OFFLINE is honoured too)
    NANO_LLAMA_CPU       instructions that Volume 3's kernels use: generic, avx2, avxvnni, avx512, amx (default: best)
    OMP_WAIT_POLICY, GOMP_SPINCOUNT    how PyTorch's threads wait for each other (default: a short spin, then sleep)
    NANO_LLAMA_API_KEY   the key that clients of nano-llama serve must send
    TRITON_INTERPRET     1: Triton itself reads it: its kernels are interpreted (vol2_torch/kernels/launch.py)
    CUBLAS_WORKSPACE_CONFIG   memory beside cuBLAS's products on a GPU (default for deterministic training: :4096:8)
    CXX                  the C++ compiler that torch.compile calls (default: the first found of g++, clang++)
    RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT, TORCHELASTIC_RESTART_COUNT,
    TORCHELASTIC_MAX_RESTARTS, TORCHELASTIC_ERROR_FILE   set by torchrun for each process that it starts
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE    1: processes that torchrun starts again do not find the dead ones' addresses
    TORCH_CPP_LOG_LEVEL   what torch's C++ parts print (default for one process of many: ERROR)
    GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME    the network interfaces that ranks use (default: the libraries choose)
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nano_llama.core.errors import EnvironmentFault, UserError

API_KEY_VARIABLE = "NANO_LLAMA_API_KEY"
CUBLAS_VARIABLE, CUBLAS_FIXED = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")
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


def silence_libraries_of_ranks() -> None:
    """In a process of many, torch's C++ parts print errors alone, unless the user chose: where a process is lost, all
    others would print where in C++ they noticed. It is read when torch is first imported."""
    if "RANK" in os.environ:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def fix_cublas_workspace() -> None:
    """cuBLAS computes beside memory of a fixed size, so that its products have the same bits each time, unless the user
    chose such a size. It is read when a GPU's first product is computed, so this must be called before.

    Raises UserError for a choice with which bits would differ.
    """
    chosen = os.environ.setdefault(CUBLAS_VARIABLE, CUBLAS_FIXED[0])
    if chosen not in CUBLAS_FIXED:
        raise UserError(
            f"{CUBLAS_VARIABLE}={chosen}: products of matrices would differ from run to run.",
            hint=f"Set it to {' or '.join(CUBLAS_FIXED)}, or unset it.",
        )


def cxx() -> str | None:
    """The C++ compiler that the user has chosen."""
    return os.environ.get("CXX") or None


def api_key() -> str | None:
    """The key that the server asks its clients for."""
    return os.environ.get(API_KEY_VARIABLE) or None


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What a launcher (torchrun) told this process about itself and the others."""

    rank: int  # among all processes, 0 first
    world_size: int  # how many there are
    local_rank: int  # among those of this machine
    local_world_size: int
    address: str  # host:port, where they find each other
    restarts: int = 0  # how often the launcher has started them again
    restartable: bool = False  # whether it would
    fresh_store: bool = False  # whether they then find each other anew


def neighbour_speaks() -> bool:
    """Whether another process that torchrun has started on this machine is the one to say what all of them find."""
    return "RANK" in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"


class FirstAttempt(NamedTuple):
    """torchrun's first attempt to run this process and its neighbours, which it starts again where they fail."""

    folder: Path  # for files that later attempts find
    is_this: bool


def first_attempt() -> FirstAttempt | None:
    """None: torchrun has not started this process, or would not start it again."""
    file, restarts = os.environ.get("TORCHELASTIC_ERROR_FILE"), os.environ.get("TORCHELASTIC_RESTART_COUNT")
    if not file or os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") == "0":
        return None
    of_this_attempt = Path(file).parents[1]  # FOLDER/attempt_3/LOCAL_RANK/error.json
    return FirstAttempt(of_this_attempt.with_name("attempt_0"), is_this=restarts == "0")


def launch() -> Launch | None:
    """What torchrun has set; None: this process was started alone. Raises EnvironmentFault where a part is missing."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    try:
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        return Launch(
            rank=rank,
            world_size=world_size,
            local_rank=int(os.environ.get("LOCAL_RANK", rank)),
            local_world_size=int(os.environ.get("LOCAL_WORLD_SIZE", world_size)),
            address=f"{os.environ['MASTER_ADDR']}:{int(os.environ['MASTER_PORT'])}",
            restarts=int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)),
            restartable=int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0,
            fresh_store=os.environ.get("TORCH_DISABLE_SHARE_RDZV_TCP_STORE") == "1",
        )
    except (KeyError, ValueError) as error:
        raise EnvironmentFault(
            f"RANK and WORLD_SIZE are set, but what goes with them is missing or not a number: {error}.",
            hint="Start the processes with torchrun, or unset RANK and WORLD_SIZE for a single one.",
        ) from None


def socket_interface(backend: str) -> str | None:
    """The network interface that the user has chosen for "gloo" or "nccl"; None: the library chooses."""
    return os.environ.get(f"{backend.upper()}_SOCKET_IFNAME") or None
