"""Data parallel: every rank has the whole model and computes on rows of its own; their gradients are summed.

PyTorch's DistributedDataParallel sums a bucket of gradients while the backward pass goes on to the next. Of its two
habits that differ from ours, the mean over ranks becomes a sum (a step's loss is already divided by the targets that
all ranks count), and it watches the forward of a module, so the loss is a module here.
Naive form: naive_ddp.py. Tests: tests/parallel/test_training.py.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.parallel import DistributedDataParallel

from nano_llama.vol2_torch.loss import HeadLoss, loss_sum
from nano_llama.vol2_torch.model import Llama


class LossSum(nn.Module):
    """vol2_torch/loss.py's loss_sum, as the forward of a module."""

    def __init__(self, model: Llama):
        super().__init__()
        self.model = model

    def forward(
        self, tokens: Tensor, targets: Tensor, head_loss: HeadLoss, z_loss: float, documents: Tensor | None,
        positions: Tensor | None,
    ) -> Tensor:  # fmt: skip
        return loss_sum(self.model, tokens, targets, head_loss, z_loss, documents, positions)  # (B,T), (B,T) -> ()


def apply_ddp(module: nn.Module, mesh: DeviceMesh) -> DistributedDataParallel:
    """The module, whose backward pass from now on sums the gradients over the ranks of dp."""
    group = mesh.get_group("dp")
    parallel = DistributedDataParallel(module, process_group=group, init_sync=False, gradient_as_bucket_view=True)
    parallel.register_comm_hook(group, sum_bucket)
    return parallel


def sum_bucket(group: dist.ProcessGroup, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """The sum over ranks, where DistributedDataParallel's own hook takes the mean."""
    work = dist.all_reduce(bucket.buffer(), group=group, async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])
