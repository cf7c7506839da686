"""A model on a mesh as one whole again, and its weights exchanged for others and back."""

from functools import partial

import pytest
import torch

from helpers.parallel import weight_cases
from helpers.parallel.training import Training
from nano_llama.core.names import parameter_shapes
from nano_llama.vol2_torch.loss import loss_sum
from nano_llama.vol2_torch.parallel import ParallelConfig

pytestmark = pytest.mark.parallel

UNEVEN = Training(vocab_size=65, intermediate=99, kv_heads=1, tied=False)
MESHES = ["dp=2", "fsdp=2", "tp=2", "pp=2", "cp=2", "fsdp=2,tp=2", "pp=2,tp=2"]
meshes = partial(pytest.mark.parametrize, "mesh")


@meshes(MESHES)
@pytest.mark.parametrize("training", [UNEVEN, Training()], ids=["untied", "tied"])
def test_wholes(ranks, mesh, training):
    found = ranks(ParallelConfig.parse(mesh).world_size).run(weight_cases.wholes, mesh=mesh, training=training)
    assert found == [(list(parameter_shapes(training.config())), True)] * len(found)


@meshes(MESHES)
def test_exchanged_weights_are_those_that_it_computes_with(ranks, mesh):
    training = Training(dtype="float64")
    found = ranks(ParallelConfig.parse(mesh).world_size).run(weight_cases.evaluations, mesh=mesh, training=training)
    model = training.model()
    batch = list(map(torch.from_numpy, training.batches(0)[0]))
    with torch.no_grad():
        own = loss_sum(model, *batch).item()
        for parameter in model.parameters():
            parameter /= 2
        halved = loss_sum(model, *batch).item()
    assert abs(own - halved) > 1e-3
    for before, between, after in found:
        assert (before, between) == (pytest.approx(own, rel=1e-12), pytest.approx(halved, rel=1e-12))
        assert after == before
