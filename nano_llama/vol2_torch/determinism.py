"""The same bits from the same run, twice and after a kill: what `deterministic = on` does on a GPU.

Sums of floating-point numbers depend on their order. PyTorch's fast kernels leave it to chance in some places: the
gradient of attention's queries is added up by whichever block comes first, and torch.compile measures which of several
kernels is the fastest, which another process may find otherwise. Within `deterministic_algorithms` PyTorch takes only
kernels with a fixed order, or raises where it has none; torch.compile chooses without measuring. cuBLAS needs a
workspace of a fixed size beside it (core/env.py).

On a CPU, sums have a fixed order as long as the number of threads stays the same: `on` is true there already, and costs
nothing. Tests: tests/vol2/test_determinism.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from nano_llama.core.env import fix_cublas_workspace
from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.training.settings import TrainSettings


def is_deterministic(setting: str, place: torch.device) -> bool:
    """Whether a run with this setting gives the same bits again on this device."""
    return setting == "on" or place.type == "cpu"


def prepare_determinism(settings: TrainSettings, place: torch.device) -> None:
    """Before the device is first used. Raises UserError where `on` cannot be had."""
    if settings.deterministic != "on" or place.type == "cpu":
        return
    if place.type != "cuda":
        raise UserError(f"deterministic = on: not on {place.type}.", hint="Use --device cpu, or --deterministic auto.")
    if settings.mesh:
        raise UserError(
            f"deterministic = on with mesh = {settings.mesh!r}: of several GPUs nobody has fixed the order of sums.",
            hint="Train on one GPU, or with --deterministic auto.",
        )
    fix_cublas_workspace()


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Raises EnvironmentFault for an operation that this PyTorch has no deterministic kernel for."""
    mode, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # nothing here reads memory that it has not written
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error).lower():
            raise
        problem = str(error).strip().splitlines()[0][:200]
        raise EnvironmentFault(f"deterministic = on: {problem}", hint="--deterministic auto") from error
    finally:
        torch.use_deterministic_algorithms(mode, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill
