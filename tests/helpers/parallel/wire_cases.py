"""Cases of tests/parallel/test_wire.py."""

import numpy as np
import torch
import torch.distributed as dist

from helpers.parallel.training import Training
from nano_llama.vol2_torch.parallel.gradients import local
from nano_llama.vol2_torch.parallel.parallelize import parallelize
from nano_llama.vol2_torch.parallel.wire import CommBytes

B, T = 8, 16


def step(here, mesh, training: Training, batches=1, **options):
    """({axis: bytes}, {(axis, kind): calls}, parameters of this rank) of the second step."""
    torch.manual_seed(0)
    mesh = here.mesh(mesh)
    parallel = parallelize(training.model(), mesh, autocast=training.autocast, **options)
    ids = np.random.default_rng(0).integers(0, training.vocab_size, (B, T))
    for _ in range(2):
        with CommBytes(mesh) as sent:
            for index in range(batches):
                rows = map(torch.from_numpy, parallel.local_batch((ids, ids.copy())))
                parallel.backward(*rows, weight=0.01, last=index == batches - 1)
            parallel.reduce_gradients()
        for parameter in parallel.parameters.values():
            parameter.grad = None
    held = sum(local(parameter).numel() for parameter in parallel.parameters.values())
    return dict(sent.by_axis), dict(sent.calls), held, mesh.get_local_rank("pp")


def collectives(here):
    """Each operation with 8 float32 numbers, over both ranks: {kind: bytes}."""
    w, x = here.world_size, torch.arange(8.0)
    parts = list(x.clone().chunk(w))
    operations = {
        "all-reduce": lambda: dist.all_reduce(x.clone()),
        "all-gather": lambda: dist.all_gather_into_tensor(torch.empty(8 * w), x),
        "all-gather of a list": lambda: dist.all_gather([torch.empty(8) for _ in range(w)], x),
        "reduce-scatter": lambda: dist.reduce_scatter_tensor(torch.empty(8 // w), x.clone()),
        "reduce-scatter of a list": lambda: dist.reduce_scatter(torch.empty(8 // w), parts),
        "all-to-all": lambda: dist.all_to_all_single(torch.empty(8), x),
        "broadcast": lambda: dist.broadcast(x.clone(), 0),
        "barrier": dist.barrier,
        "point to point": lambda: dist.send(x, 1) if here.rank == 0 else dist.recv(x.clone(), 0),
    }
    found = {}
    for name, operation in operations.items():
        with CommBytes(here.mesh(f"dp={w}")) as sent:
            operation()
        found[name] = dict(sent.by_axis)
    return found
