"""Cases of tests/parallel/test_cp.py."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from helpers.parallel import one_process
from nano_llama.core.errors import UserError
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.vol2_torch.loss import loss_sum
from nano_llama.vol2_torch.parallel.cp import ContextParallelAttention, context_parallel, whole_sequences
from nano_llama.vol2_torch.parallel.naive_cp import NaiveRing
from nano_llama.vol2_torch.parallel.sequence_split import local_positions, split_batch

NAMES = ("out", "dq", "dk", "dv")


def attention(here, exchange, G, dtype=torch.float32, H=4, N=6):
    """Its differences from one process's attention; exchange "naive": NaiveRing."""
    group, generator = here.mesh(f"cp={here.world_size}").get_group("cp"), torch.Generator().manual_seed(1)
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
    model, group = one_process.model(tied, dtype), here.mesh(f"cp={here.world_size}").get_group("cp")
    model.train_with(0.0, checkpointing)
    context_parallel(model, group, exchange)
    return model, group


def model_gradients(here, exchange, tied=True, length=one_process.T, checkpointing="none"):
    model, group = ready(here, exchange, tied, torch.float64, checkpointing)
    tokens, targets = one_process.batch(0, length)
    counted = (targets != IGNORE_INDEX).sum()
    tokens, targets, positions = split_batch(tokens, targets, group.rank(), group.size())
    (loss_sum(model, tokens, targets, positions=positions) / counted).backward()
    got = {name: parameter.grad for name, parameter in model.named_params().items()}
    for gradient in got.values():
        dist.all_reduce(gradient, group=group)
    return one_process.differences(got, one_process.gradients(tied, length=length))


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
