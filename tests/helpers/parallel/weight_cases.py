"""Cases of tests/parallel/test_weights.py."""

import torch

from helpers.parallel.training import Training
from nano_llama.vol2_torch.parallel.parallelize import parallelize
from nano_llama.vol2_torch.parallel.weights import exchange, whole_tensors


def wholes(here, mesh, training: Training):
    """Names in order, whether all are the model's own, and how many numbers this rank keeps."""
    expected = training.model().named_params()
    parallel = parallelize(training.model(), here.mesh(mesh))
    found = dict(whole_tensors(parallel.parameters, parallel.mesh))
    return list(found), all(torch.equal(found[name], expected[name]) for name in expected)


def evaluations(here, mesh, training: Training):
    """Nats of a batch with the weights, with halved ones, with the weights again; and with the latter two in turn."""
    parallel = parallelize(training.model(), here.mesh(mesh))
    halved = {name: (parameter.detach() / 2).clone() for name, parameter in parallel.parameters.items()}
    rows = list(map(torch.from_numpy, parallel.local_batch(training.batches(0)[0])))
    found = []
    for _ in range(3):
        found.append(parallel.eval_loss_sum(*rows).item())
        exchange(parallel.parameters, halved)
    return found
