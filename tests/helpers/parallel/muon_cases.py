"""Cases of tests/parallel/test_muon.py."""

import torch
import torch.distributed as dist

from helpers.parallel import one_process
from nano_llama.core.names import is_hidden_matrix
from nano_llama.vol2_torch.optim import Muon
from nano_llama.vol2_torch.parallel.gradients import local
from nano_llama.vol2_torch.parallel.matrix_parts import like, part_here
from nano_llama.vol2_torch.parallel.naive_muon import NaiveMuon
from nano_llama.vol2_torch.parallel.owner_muon import OwnerMuon
from nano_llama.vol2_torch.parallel.parallelize import parallelize


def matrices(model):
    return {name: parameter for name, parameter in model.named_params().items() if is_hidden_matrix(name)}


def updates(here, mesh, kind, steps):
    """The largest differences from Muon in one process, and how many matrices were orthogonalized here, of how many."""
    model, reference = one_process.model(), matrices(one_process.model())
    parallelize(model, here.mesh(mesh))
    parameters, options = matrices(model), {"lr": 0.01, "weight_decay": 0.1}
    optimizer = {"owner": OwnerMuon, "naive": NaiveMuon}[kind](parameters.values(), group=dist.group.WORLD, **options)
    expected, generator = Muon(reference.values(), **options), torch.Generator().manual_seed(5)
    for _ in range(steps):
        for name, weight in reference.items():
            weight.grad = torch.randn(weight.shape, generator=generator)
            parameters[name].grad = like(part_here(parameters[name]).of(weight.grad).clone(), parameters[name])
        optimizer.step()
        expected.step()
    got = {name: local(parameter).detach() for name, parameter in parameters.items()}
    wanted = {name: part_here(parameters[name]).of(weight).detach() for name, weight in reference.items()}
    filled = {name: tensor for name, tensor in got.items() if tensor.numel()}  # a rank may have no row of a matrix
    return one_process.differences(filled, wanted), getattr(optimizer, "orthogonalized_here", None), len(reference)
