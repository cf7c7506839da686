"""Cases of tests/parallel/test_dropout.py."""

import torch

from helpers.parallel.training import Training, count
from nano_llama.vol2_torch.loss import loss_sum
from nano_llama.vol2_torch.parallel.draws import SEEDS, own_draws
from nano_llama.vol2_torch.parallel.parallelize import parallelize

P = 0.3
CPU = torch.device("cpu")


def drawn(here, mesh):
    """What two passes draw here, and the state of the generator behind them."""
    found = []
    for _ in range(2):
        with own_draws(here.mesh(mesh), CPU):
            found.append(torch.rand(4).tolist())
    return *found, torch.rand(4).tolist()


def gradients(here, mesh, training: Training, axes):
    """The largest difference from one process that draws for each rank's rows as that rank does. axes: (dp, fsdp)."""
    batch = training.batches(0)[0]
    model, reference = training.model(), training.model()
    for one in (model, reference):
        one.train_with(P, training.activation_checkpointing)
    parallel = parallelize(model, here.mesh(mesh))
    torch.manual_seed(7)
    with own_draws(here.mesh(mesh), CPU):
        parallel.backward(*map(torch.from_numpy, parallel.local_batch(batch)), weight=1 / count([batch]))
    parallel.reduce_gradients()

    torch.manual_seed(7)
    seed, ranks = int(torch.randint(SEEDS, ())), axes[0] * axes[1]
    rows = training.rows // ranks
    for place in range(ranks):
        own = slice(place * rows, (place + 1) * rows)
        torch.manual_seed(seed + place)
        nats = loss_sum(reference, *(torch.from_numpy(part[own]) for part in batch))
        (nats / count([batch])).backward()
    differences = []
    for name, parameter in reference.named_params().items():
        gradient = parallel.parameters[name].grad
        whole = getattr(gradient, "full_tensor", lambda gradient=gradient: gradient)()
        differences.append(((whole - parameter.grad).abs().max() / parameter.grad.abs().max()).item())
    return max(differences)


def norms(here, mesh, training: Training):
    """The gradient's norm with dropout and without, and without again after passes that have drawn."""
    batch, found = training.batches(0)[0], []
    for p in (P, 0.0):
        model = training.model()
        model.train_with(p, "none")
        parallel = parallelize(model, here.mesh(mesh))
        torch.manual_seed(7)
        with own_draws(here.mesh(mesh), CPU):
            parallel.backward(*map(torch.from_numpy, parallel.local_batch(batch)), weight=1 / count([batch]))
        parallel.reduce_gradients()
        found.append(parallel.global_norm().item())
    return found
