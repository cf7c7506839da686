"""What else a trainer asks for, on the axes that change the model: other optimizers, less memory, bf16, compiling."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.parallel.ranks import CPU
from helpers.parallel.training import Training, compare, merged, reference, train
from nano_llama.vol2_torch.compiling import compiler_problem
from nano_llama.vol2_torch.parallel import ParallelConfig

pytestmark = pytest.mark.parallel

SHORT = {"dtype": "float64", "steps": 3}
OPTIONS = {  # two at once, of which the one shows in the gradients, and the other in what follows from them
    "full, lion": Training(activation_checkpointing="full", optimizer="lion", **SHORT),
    "selective, schedulefree": Training(activation_checkpointing="selective", optimizer="schedulefree", **SHORT),
    "adafactor": Training(optimizer="adafactor", **SHORT),
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
    in_float32 = reference(replace(training, bf16=False)).losses
    assert np.abs(np.subtract(outcomes[0].losses, in_float32)).max() > 2e-5, "it did compute in bf16"


@pytest.mark.slow  # a compiler runs in every rank
@pytest.mark.skipif(bool(compiler_problem(CPU)), reason="no C++ compiler")
@pytest.mark.parametrize("mesh", ["dp=2", "tp=2", "cp=2", "pp=2", "fsdp=2,tp=2"])  # fsdp=2: test_trainer.py
def test_compiled_layers(ranks, mesh):
    training = Training(compiled=True, steps=4)
    outcomes = ranks(ParallelConfig.parse(mesh).world_size).run(train, mesh=mesh, training=training)
    compare(merged(outcomes), training, f"{mesh} compiled")
