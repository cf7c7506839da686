"""Cases of tests/parallel/test_naive.py: -> loss and gradients of a step, those by what this rank holds of them."""

import torch
import torch.distributed as dist

from helpers.parallel.training import count
from nano_llama.vol2_torch.parallel import naive_ddp, naive_fsdp, naive_tp


def rows(batch, here):
    """This rank's rows of a batch."""
    return [torch.from_numpy(part).chunk(here.world_size)[here.rank] for part in batch]


def gradients(parameters):
    return {name: parameter.grad.numpy() for name, parameter in parameters.items()}


def data_parallel(here, training):
    model = training.model()
    loss = naive_ddp.gradient(model, *rows(training.batches(0)[0], here), dist.group.WORLD)
    return loss.item(), gradients(model.named_params())


def fully_sharded(here, training):
    batch = training.batches(0)[0]
    sharded = naive_fsdp.NaiveFSDP(training.model(), dist.group.WORLD)
    loss = sharded.loss_sum(*rows(batch, here)) / count([batch])
    loss.backward()
    assert all(parameter.is_meta for parameter in sharded.model.parameters()), "nothing but slices is kept"
    dist.all_reduce(total := loss.detach().clone())
    return total.item(), gradients(sharded.slices)


def tensor_parallel(here, training):
    batch = training.batches(0)[0]
    model = training.model()
    naive_tp.cut(model, dist.group.WORLD)
    loss = naive_tp.loss_sum(model, *map(torch.from_numpy, batch), dist.group.WORLD) / count([batch])
    loss.backward()
    return loss.item(), gradients(model.named_params())
