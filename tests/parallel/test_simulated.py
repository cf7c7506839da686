"""A training step of 8 x 8 ranks in this process: each holds its slice, and all gradients are those of one process."""

import numpy as np
import pytest
import torch
import torch.distributed as dist

from helpers.parallel.training import Training
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.vol2_torch.loss import loss_sum
from nano_llama.vol2_torch.parallel import ParallelConfig
from nano_llama.vol2_torch.parallel.comm_formulas import rank_parameters
from nano_llama.vol2_torch.parallel.gradients import local
from nano_llama.vol2_torch.parallel.mesh import make_mesh
from nano_llama.vol2_torch.parallel.parallelize import parallelize
from nano_llama.vol2_torch.parallel.simulated import on_rank, simulated_ranks

pytestmark = pytest.mark.parallel

AXES = ParallelConfig(dp=8, tp=8)
TRAINING = Training(heads=8, kv_heads=8, layers=1, vocab_size=64, intermediate=64, dtype="float64")


def test_sixty_four_ranks():
    rng = np.random.default_rng(0)
    tokens, targets = (torch.from_numpy(rng.integers(0, 64, (8, 12))) for _ in range(2))
    targets[0, 3:] = targets[5] = IGNORE_INDEX
    expected = TRAINING.model()
    loss_sum(expected, tokens, targets).backward()
    model = TRAINING.model()
    with simulated_ranks(AXES.world_size) as ranks:
        parallel = parallelize(model, make_mesh(AXES, torch.device("cpu")))
        rows = [ranks.rank_map(lambda rank, x=x: x[rank // 8 :][:1].clone()) for x in (tokens, targets)]
        parallel.backward(*rows, weight=1.0)
        parallel.reduce_gradients()
        norm = parallel.global_norm()
        for name, parameter in parallel.parameters.items():
            whole, where, found = expected.get_parameter(name).grad, parameter.placements[0], local(parameter.grad)
            for rank in range(AXES.world_size):
                part = whole.chunk(8, where.dim)[rank % 8] if where.is_shard() else whole
                error = (on_rank(found, rank) - part).abs().max() / whole.abs().max()
                assert error < 1e-12, f"rank {rank}: the gradient of {name} differs by {error:.1e}"
        q_proj = model.model.layers[0].self_attn.q_proj.weight
        assert torch.equal(on_rank(q_proj, 19), expected.model.layers[0].self_attn.q_proj.weight[3 * 16 : 4 * 16])
        held = sum(on_rank(parameter, 63).numel() for parameter in parallel.parameters.values())
        assert held == sum(rank_parameters(TRAINING.config(), AXES).values())
        total = torch.nn.utils.get_total_norm([parameter.grad for parameter in expected.parameters()])
        assert all(on_rank(norm, rank) == pytest.approx(total.item(), rel=1e-12) for rank in (0, 63))
    assert not dist.is_initialized(), "and nothing is left of them"
