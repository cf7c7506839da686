"""Cases of tests/parallel/test_cp.py."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from helpers.parallel import one_process
from nano_llama.core.errors import UserError
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.vol2_torch.loss import head_loss
from nano_llama.vol2_torch.parallel.cp import ContextParallelAttention, context_parallel, whole_sequences
from nano_llama.vol2_torch.parallel.naive_cp import NaiveRing
from nano_llama.vol2_torch.parallel.sequence_split import local_positions, split_batch

NAMES = ("out", "dq", "dk", "dv")


def attention(here, exchange, G, dtype=torch.float32, H=4, N=6):
    """Its differences from one process's attention; exchange "naive": NaiveRing."""
    group, generator = here.mesh(f"cp={here.world_size}")["cp"].get_group(), torch.Generator().manual_seed(1)
    T = N * here.world_size
    positions = local_positions(T, group.rank(), group.size())
    shapes = ((2, H, T, 8), (2, G, T, 8), (2, G, T, 8), (2, H, T, 8))
    *inputs, dout = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    whole = [x.clone().requires_grad_() for x in inputs]
    out = F.scaled_dot_product_attention(*whole, is_causal=True, enable_gqa=True)
    out.backward(dout)
    expected = dict(zip(NAMES, [out.detach(), *(x.grad for x in whole)], strict=True))
    here_expected = {name: x[:, :, positions] for name, x in expected.items()}
    q, k, v = local = [x[:, :, positions].to(dtype).requires_grad_() for x in inputs]
    if exchange == "naive":
        y = NaiveRing.apply(q, *(x.repeat_interleave(H // G, 1) for x in (k, v)), positions, group)
    else:
        y = ContextParallelAttention(group, exchange)(q, k, v, None, True)
    y.backward(dout[:, :, positions].to(dtype))
    got = dict(zip(NAMES, [y.detach(), *(x.grad for x in local)], strict=True))
    return one_process.differences(got, here_expected)


def ready(here, exchange, tied, dtype, checkpointing="none"):
    model, group = one_process.model(tied, dtype), here.mesh(f"cp={here.world_size}")["cp"].get_group()
    model.train_with(0.0, checkpointing)
    context_parallel(model, group, exchange)
    return model, group


def backward(model, group, tokens, targets, head_loss):
    """A step's gradients, summed over the ranks -> the mean loss."""
    counted = (targets != IGNORE_INDEX).sum()
    tokens, targets, positions = split_batch(tokens, targets, group.rank(), group.size())
    hidden = model.hidden_states(tokens, positions=positions)
    loss = head_loss(hidden.flatten(0, 1), model.head_weight, targets.flatten()) / counted
    loss.backward()
    loss = loss.detach()
    for x in [loss, *(parameter.grad for parameter in model.parameters())]:
        dist.all_reduce(x, group=group)
    return loss.item()


def model_gradients(here, exchange, tied=True, length=one_process.T, checkpointing="none"):
    model, group = ready(here, exchange, tied, torch.float64, checkpointing)
    backward(model, group, *one_process.batch(0, length), one_process.exact_head_loss)
    got = {name: parameter.grad for name, parameter in model.named_params().items()}
    return one_process.differences(got, one_process.gradients(tied, length=length))


def training(here, exchange, tied=True, kind="adamw"):
    """The largest difference of 20 losses."""
    model, group = ready(here, exchange, tied, torch.float32)
    made, found = one_process.optimizers(model.named_params(), kind), []
    for step in range(one_process.STEPS):
        found.append(backward(model, group, *one_process.batch(step), head_loss))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in made:
            optimizer.step()
            optimizer.zero_grad()
    return max(abs(a - b) for a, b in zip(found, one_process.losses(tied, kind), strict=True))


def refusals(here):
    model, group = ready(here, "ring", True, torch.float32)
    tokens, _ = one_process.batch(0)
    documents = torch.ones(1, 1, tokens.shape[1], tokens.shape[1], dtype=torch.bool)
    with pytest.raises(UserError, match="Packed documents over cp"):
        model.hidden_states(tokens, mask=documents)
    with pytest.raises(UserError, match="Unknown exchange 'star'"):
        context_parallel(model, group, "star")
    return str(group.size())


def whole(here):
    """Inside whole_sequences the model is that of one process, and its keys may be cached."""
    model, _ = ready(here, "ring", True, torch.float32)
    tokens, _ = one_process.batch(0)
    with whole_sequences(model), torch.no_grad():
        same = torch.equal(model(tokens), one_process.model()(tokens))
    return same and all(isinstance(layer.self_attn.attend, ContextParallelAttention) for layer in model.model.layers)
