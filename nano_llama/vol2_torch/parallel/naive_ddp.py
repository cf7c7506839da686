"""Data parallel with nothing hidden: after the backward pass each gradient is summed over the ranks.

ddp.py gathers them in buckets, which travel while the backward pass still computes others.
Tests: tests/parallel/test_naive.py.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.vol2_torch.loss import loss_sum
from nano_llama.vol2_torch.model import Llama


def gradient(model: Llama, tokens: Tensor, targets: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The mean loss over all ranks' counted targets, (); its gradient is left in the model.

    tokens, targets: (B/w,T), this rank's rows. The ranks count differently, so each divides by what all have counted:
    the mean of the ranks' own means would weigh a target of a rank with few of them more.
    """
    counted = (targets != IGNORE_INDEX).sum()
    dist.all_reduce(counted, group=group)
    loss = loss_sum(model, tokens, targets) / counted.clamp(min=1)
    loss.backward()
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad, group=group)
    total = loss.detach().clone()
    dist.all_reduce(total, group=group)
    return torch.as_tensor(total)
