"""Cases of tests/parallel/test_pp.py."""

import pytest
import torch
import torch.distributed as dist

from helpers.parallel import one_process
from nano_llama.core.errors import UserError
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.vol2_torch.loss import loss_sum
from nano_llama.vol2_torch.parallel.naive_pp import naive_pipeline_backward, naive_tied_exchange
from nano_llama.vol2_torch.parallel.pp import Pipeline
from nano_llama.vol2_torch.parallel.stage import EMBEDDING, Stage


def group_of(here):
    return here.mesh(f"pp={here.world_size}").get_group("pp")


def backward(pipeline, tokens, targets, documents=None):
    """A step's gradients -> the mean loss."""
    counted = (targets != IGNORE_INDEX).sum().item()
    loss = pipeline.backward(tokens, targets, documents=documents, weight=1 / counted)
    pipeline.exchange_tied_gradients()
    dist.all_reduce(loss, group=pipeline.group)
    return loss.item()


def gradients(here, schedule, tied=True, packed=False, checkpointing="none"):
    model = one_process.model(tied, torch.float64)
    model.train_with(0.0, checkpointing)
    pipeline = Pipeline(model, group_of(here), schedule=schedule)
    backward(pipeline, *one_process.batch(0), documents=one_process.documents(0) if packed else None)
    got = {name: parameter.grad for name, parameter in pipeline.named_parameters()}
    return one_process.differences(got, one_process.gradients(tied, packed=packed))


def naive_gradients(here, tied=True):
    group = group_of(here)
    stage = Stage(one_process.model(tied, torch.float64), group.rank(), group.size())
    tokens, targets = one_process.batch(0)
    counted = (targets != IGNORE_INDEX).sum().item()
    naive_pipeline_backward(stage, group, tokens, targets, 4, 1 / counted)
    named = dict(stage.named_parameters())
    if tied and EMBEDDING in named:
        naive_tied_exchange(named[EMBEDDING], group)
    got = {name: parameter.grad for name, parameter in named.items()}
    return one_process.differences(got, one_process.gradients(tied))


def evaluation(here, schedule, packed):
    """The nats of a batch, and of one that no microbatches divide."""
    pipeline, model = Pipeline(one_process.model(), group_of(here), schedule=schedule), one_process.model()
    for rows in (8, 3):
        tokens, targets = (x[:rows] for x in one_process.batch(0))
        documents = one_process.documents(0)[:rows] if packed else None
        nats = pipeline.eval_loss_sum(tokens, targets, documents=documents)
        dist.all_reduce(nats, group=pipeline.group)
        with torch.no_grad():
            expected = loss_sum(model, tokens, targets, documents=documents).item()
        assert nats.item() == pytest.approx(expected, rel=1e-6)
    return True


def other_shapes(here):
    """A longer batch between two others: the schedule is planned anew, and the gradients of all three add up."""
    model = one_process.model(True, torch.float64)
    pipeline = Pipeline(one_process.model(True, torch.float64), group_of(here))
    for length in (24, 30, 24):
        tokens, targets = one_process.batch(0, length)
        pipeline.backward(tokens, targets, weight=0.01)
        (0.01 * loss_sum(model, tokens, targets)).backward()
    pipeline.exchange_tied_gradients()
    expected = {name: parameter.grad for name, parameter in model.named_params().items()}
    return one_process.differences({name: p.grad for name, p in pipeline.named_parameters()}, expected)


def refusals(here):
    group, (tokens, targets) = group_of(here), one_process.batch(0)
    with pytest.raises(UserError, match="8 rows cannot be cut into 2 microbatches"):
        Pipeline(one_process.model(), group, microbatches=2).backward(tokens, targets, weight=1.0)
    with pytest.raises(UserError, match="8 rows cannot be cut into 5 microbatches"):
        Pipeline(one_process.model(), group, microbatches=5).backward(tokens, targets, weight=1.0)
    with pytest.raises(UserError, match="Unknown pipeline schedule 'zigzag'"):
        Pipeline(one_process.model(), group, schedule="zigzag")
    return True
