"""How many ranks each axis of parallelism has: dp=2,fsdp=2 for four.

    dp     data parallel: every rank has the whole model and rows of its own of each batch
    fsdp   the same, but each rank keeps a slice of every parameter and gathers a layer when it computes it
    tp     tensor parallel: each rank computes with a slice of every matrix
    pp     pipeline parallel: each rank has some of the layers
    cp     context parallel: each rank has a part of every row

Tests: tests/parallel/test_config.py.
"""

import math
from dataclasses import asdict, dataclass

from nano_llama.core.errors import UserError

# Outermost first. Neighbouring ranks, which share a machine, differ in the last axis: tensor parallel sends the most,
# and every layer waits for it; a pipeline sends the least.
AXES = ("pp", "dp", "fsdp", "cp", "tp")
EXAMPLE = "Write axes with their sizes, as in dp=2,fsdp=2: dp, fsdp, tp, pp, cp."


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """The size of each axis; 1: the axis is not used. Their product is the number of ranks."""

    dp: int = 1
    fsdp: int = 1
    tp: int = 1
    pp: int = 1
    cp: int = 1

    def __post_init__(self) -> None:
        for axis, size in asdict(self).items():
            if type(size) is not int or size < 1:
                raise UserError(f"mesh: {axis} = {size!r} is not a number of ranks, 1 or more.", hint=EXAMPLE)

    @classmethod
    def parse(cls, text: str) -> "ParallelConfig":
        """ "dp=2,fsdp=2" -> ParallelConfig(dp=2, fsdp=2). An axis that is not named has size 1."""
        sizes: dict[str, int] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            axis, equals, size = (piece.strip() for piece in part.partition("="))
            if axis not in AXES:
                raise UserError(f"mesh: unknown axis {axis!r} in {text!r}.", hint=EXAMPLE)
            if axis in sizes:
                raise UserError(f"mesh: {axis} is named twice in {text!r}.", hint=EXAMPLE)
            if not equals or not size.isascii() or not size.isdigit():
                raise UserError(f"mesh: {part!r} does not say how many ranks {axis} has.", hint=EXAMPLE)
            sizes[axis] = int(size)
        return cls(**sizes)

    def __str__(self) -> str:
        """As `parse` reads it; "dp=1" for a single process."""
        return ",".join(f"{axis}={size}" for axis, size in asdict(self).items() if size > 1) or "dp=1"

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes in the order of AXES."""
        return tuple(getattr(self, axis) for axis in AXES)

    @property
    def world_size(self) -> int:
        return math.prod(self.shape)

    def check_world_size(self, world_size: int) -> None:
        """Raise UserError unless this is how many ranks the axes need."""
        if world_size == self.world_size:
            return
        product = " x ".join(f"{axis} {size}" for axis, size in asdict(self).items() if size > 1) or "one rank"
        started = f"{world_size} {'process was' if world_size == 1 else 'processes were'} started"
        raise UserError(
            f"mesh: {self} needs {self.world_size} ({product}), but {started}.",
            hint=f"Start them with  torchrun --nproc-per-node {self.world_size}  or choose axes whose product is "
            f"{world_size}, as dp={world_size}.",
        )
