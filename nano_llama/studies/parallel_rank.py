"""One of the two processes of parallel.py: a step over every axis, of which it prints what it sent and holds as JSON.

    python -m nano_llama.studies.parallel_rank STORE RANK '{"axes": [...], "model": {...}, "rows": B, "seed": 0}'

Tests: tests/parallel/test_study.py.
"""

import json
import sys
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from nano_llama.core.config import LlamaConfig
from nano_llama.core.env import Launch
from nano_llama.vol2_torch import Llama
from nano_llama.vol2_torch.parallel.config import ParallelConfig
from nano_llama.vol2_torch.parallel.gradients import local
from nano_llama.vol2_torch.parallel.mesh import make_mesh, process_group
from nano_llama.vol2_torch.parallel.parallelize import parallelize
from nano_llama.vol2_torch.parallel.wire import CommBytes

CPU = torch.device("cpu")
WARM_UP = 1  # steps before the one that is counted: the first plans a pipeline and builds buckets


def main(store: str, rank: int, wanted: dict[str, Any]) -> dict[str, dict[str, int]]:
    torch.set_num_threads(1)
    launch = Launch(rank=rank, world_size=2, local_rank=rank, local_world_size=2, address=store)
    with process_group(launch, CPU, store=dist.FileStore(store, 2)):
        config = LlamaConfig.from_hf_dict(wanted["model"])
        return {axis: step(axis, config, wanted["rows"], wanted["seed"]) for axis in wanted["axes"]}


def step(axis: str, config: LlamaConfig, rows: int, seed: int) -> dict[str, int]:
    """The bytes that this rank sends in a step over two ranks of the axis, and the parameters that it holds."""
    mesh = make_mesh(ParallelConfig(**{axis: 2}), CPU)
    parallel = parallelize(Llama.init(config, seed), mesh)
    ids = np.random.default_rng(seed).integers(0, config.vocab_size, (rows, config.max_position_embeddings))  # (B,T)
    for _ in range(WARM_UP + 1):
        with CommBytes(mesh) as sent:
            own = map(torch.from_numpy, parallel.local_batch((ids, ids.copy())))
            parallel.backward(*own, weight=1.0 / ids.size)
            parallel.reduce_gradients()
        for parameter in parallel.parameters.values():
            parameter.grad = None
    return {"bytes": sent.by_axis[axis], "held": sum(local(p).numel() for p in parallel.parameters.values())}


if __name__ == "__main__":
    store, rank, wanted = sys.argv[1:]
    print(json.dumps(main(store, int(rank), json.loads(wanted))))
