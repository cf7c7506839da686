"""Random numbers on a mesh: what dropout draws.

Ranks that hold the same numbers must drop the same of them (tp: the stream is whole on each), and others independent
ones (dp, fsdp: other rows; cp: other positions; pp: other layers). So all ranks keep one generator in the same state,
the one that a checkpoint holds; each pass takes a seed from it, and draws from that seed plus the rank's place.
A resumed run draws the same again on the same mesh. On another, or in one process, the masks are others of the same
kind: to draw one process's masks each rank would have to draw those of all.
Tests: tests/parallel/test_dropout.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.device_mesh import DeviceMesh

from nano_llama.vol2_torch.parallel.config import AXES
from nano_llama.vol2_torch.parallel.mesh import axis_size

SEEDS = 2**62


@contextmanager
def own_draws(mesh: DeviceMesh, device: torch.device) -> Iterator[None]:
    """Within, this rank draws its own numbers; behind it all ranks' generators are in the same state again."""
    seed = int(torch.randint(SEEDS, ()))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed + place(mesh))
        yield


def place(mesh: DeviceMesh) -> int:
    """Of the ranks that are to draw other numbers, which this is."""
    number = 0
    for axis in AXES:
        if axis != "tp":
            number = number * axis_size(mesh, axis) + mesh.get_local_rank(axis)
    return number
