"""Cases of tests/parallel/test_gathered.py."""

import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from helpers.parallel.training import Training
from nano_llama.core.init import InitialParams
from nano_llama.formats import save_safetensors
from nano_llama.training.ranks import serve
from nano_llama.vol2_torch.model import Llama
from nano_llama.vol2_torch.parallel import gathered
from nano_llama.vol2_torch.parallel.gathered import MeshTensors
from nano_llama.vol2_torch.parallel.gradients import local
from nano_llama.vol2_torch.parallel.parallelize import parallelize


class Alive:
    """Bytes of what is held at a time, and the most that ever was."""

    def __init__(self):
        self.now = self.most = 0

    def count(self, tensor):
        """Until nobody holds it, or a view of it, any more."""
        self.now += tensor.nbytes
        self.most = max(self.most, self.now)
        weakref.finalize(tensor, self.freed, tensor.nbytes)
        return tensor

    def freed(self, nbytes):
        self.now -= nbytes


class Counted(Mapping):
    """Weights of which each is counted while it is held."""

    def __init__(self, weights, alive):
        self.weights, self.alive = weights, alive

    def __getitem__(self, name):
        return self.alive.count(self.weights[name])

    def __iter__(self):
        return iter(self.weights)

    def __len__(self):
        return len(self.weights)


def built(here, mesh, training: Training):
    """(most bytes of whole tensors at a time, parameters held here, loss): of a model that no rank has whole."""
    alive, config = Alive(), training.config()
    with torch.device("meta"):
        model = Llama(config)
    parallel = parallelize(model, here.mesh(mesh), weights=Counted(InitialParams(config), alive))
    held = sum(local(parameter).numel() for parameter in parallel.parameters.values())
    rows = map(torch.from_numpy, parallel.local_batch(training.batches(0)[0]))
    return alive.most, held, parallel.eval_loss_sum(*rows).item()


def saved(here, mesh, training: Training, file: Path, fails=False):
    """Most bytes of whole tensors at a time. fails: the first rank stops reading in the middle."""
    alive = Alive()
    parallel = parallelize(training.model(), here.mesh(mesh))
    whole_tensor, gathered.whole_tensor = gathered.whole_tensor, lambda *given: alive.count(whole_tensor(*given))
    try:
        tensors = MeshTensors(parallel.parameters, parallel.mesh, {"seeds": np.arange(3)})
        if here.rank != 0:
            serve(tensors)
        else:
            with tensors:
                if fails:
                    next(iter(tensors.values()))
                    return "failed"
                save_safetensors(file, tensors)
    finally:
        gathered.whole_tensor = whole_tensor
    return alive.most
