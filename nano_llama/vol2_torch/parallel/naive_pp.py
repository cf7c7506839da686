"""Pipeline parallelism in the plainest form: GPipe with send and recv.

All microbatches forward, then all backward, the last one first. What pp.py adds: a backward pass as soon as it can be,
sends that nobody waits for, several orders. Tests: tests/parallel/test_pp.py compares the two.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from nano_llama.vol2_torch.loss import HeadLoss, head_loss
from nano_llama.vol2_torch.parallel.stage import Stage


def naive_pipeline_backward(
    stage: Stage, group: ProcessGroup, tokens: Tensor, targets: Tensor, microbatches: int, weight: float,
    head_loss: HeadLoss = head_loss,
) -> float:  # fmt: skip
    """Add to the stage's gradients those of weight times the nats summed -> this sum, on the last rank; 0 on others.

    tokens, targets: (B,T), the same on every rank. A tied embedding's two gradients are still to be added.
    """
    rank, size = group.rank(), group.size()
    before, after = (dist.get_global_rank(group, (rank + step) % size) for step in (-1, 1))
    inputs, outputs = [], []
    for ids, wanted in zip(tokens.chunk(microbatches), targets.chunk(microbatches), strict=True):  # (B/m,T) each
        x = ids
        if not stage.is_first:
            x = torch.empty(*ids.shape, stage.config.hidden_size, dtype=stage.dtype, device=ids.device)  # (B/m,T,D)
            dist.recv(x, before, group)
            x.requires_grad_()
        y = stage(x)  # (B/m,T,D)
        if stage.is_last:
            y = weight * head_loss(y.flatten(0, 1), stage.head_weight, wanted.flatten(), 0.0)  # ()
        else:
            dist.send(y.detach().contiguous(), after, group)
        inputs.append(x)
        outputs.append(y)
    for x, y in zip(reversed(inputs), reversed(outputs), strict=True):
        if stage.is_last:
            y.backward()
        else:
            dy = torch.empty_like(y)  # (B/m,T,D)
            dist.recv(dy, after, group)
            y.backward(dy)
        if not stage.is_first:
            assert x.grad is not None, "x is a leaf, and y depends on it"
            dist.send(x.grad, before, group)
    return torch.stack(outputs).sum().item() if stage.is_last else 0.0


def naive_tied_exchange(weight: Tensor, group: ProcessGroup) -> None:
    """On the first and the last rank: add the other's gradient of the tied embedding to one's own."""
    assert weight.grad is not None, "a step has been made"
    there = torch.empty_like(weight.grad)
    if group.rank() == 0:
        last = dist.get_global_rank(group, group.size() - 1)
        dist.send(weight.grad, last, group)
        dist.recv(there, last, group)
    else:
        first = dist.get_global_rank(group, 0)
        dist.recv(there, first, group)
        dist.send(weight.grad, first, group)
    weight.grad += there
