"""What else a trainer asks for, on the axes that change the model: other optimizers, less memory, bf16, compiling."""

import pytest
import torch

from helpers.parallel.ranks import CPU
from helpers.parallel.training import Training, compare, merged, train
from nano_llama.vol2_torch.compiling import compiler_problem
from nano_llama.vol2_torch.parallel import ParallelConfig

pytestmark = pytest.mark.parallel

SHORT = {"dtype": "float64", "steps": 3}
OPTIONS = {
    "lion": Training(optimizer="lion", **SHORT),
    "adafactor": Training(optimizer="adafactor", **SHORT),
    "schedulefree": Training(optimizer="schedulefree", **SHORT),
    "full": Training(activation_checkpointing="full", **SHORT),
    "selective": Training(activation_checkpointing="selective", **SHORT),
}
MESHES = ["dp=2", "fsdp=2", "tp=2", "cp=2", "pp=2", "fsdp=2,tp=2", "fsdp=2,pp=2"]


@pytest.mark.parametrize(
    ("mesh", "option"),
    [
        (mesh, option)
        for option in OPTIONS
        for mesh in MESHES
        if option != "adafactor" or mesh in ("dp=2", "cp=2", "pp=2")  # others are refused
    ],
)
def test_options(ranks, mesh, option):
    outcomes = ranks(ParallelConfig.parse(mesh).world_size).run(train, mesh=mesh, training=OPTIONS[option])
    compare(merged(outcomes), OPTIONS[option], f"{mesh} {option}")


@pytest.mark.parametrize("mesh", MESHES)
def test_bf16(ranks, mesh):
    """Sums in another order are rounded to other numbers of 8 bits; what differs is of that size."""
    training = Training(bf16=True, steps=4)
    products = torch.bfloat16  # of fsdp, as the trainer has it
    outcomes = ranks(ParallelConfig.parse(mesh).world_size).run(train, mesh=mesh, training=training, products=products)
    compare(merged(outcomes), training, f"{mesh} bf16", tolerance=3e-2)
    assert outcomes[0].losses != train_in_float32(ranks, mesh), "it did compute in bf16"


def train_in_float32(ranks, mesh):
    return ranks(ParallelConfig.parse(mesh).world_size).run(train, mesh=mesh, training=Training(steps=4))[0].losses


@pytest.mark.slow  # a compiler runs in every rank
@pytest.mark.skipif(bool(compiler_problem(CPU)), reason="no C++ compiler")
@pytest.mark.parametrize("mesh", ["dp=2", "fsdp=2", "tp=2", "cp=2", "pp=2", "fsdp=2,tp=2"])
def test_compiled_layers(ranks, mesh):
    training = Training(compiled=True, steps=4)
    outcomes = ranks(ParallelConfig.parse(mesh).world_size).run(train, mesh=mesh, training=training)
    compare(merged(outcomes), training, f"{mesh} compiled")
