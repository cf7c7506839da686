"""Dropout on a mesh: ranks with the same numbers drop the same, others others; gradients are those of these masks."""

import pytest

from helpers.parallel import dropout_cases
from helpers.parallel.training import Training
from nano_llama.vol2_torch.parallel import ParallelConfig

pytestmark = pytest.mark.parallel


def on(ranks, mesh):
    return ranks(ParallelConfig.parse(mesh).world_size)


@pytest.mark.parametrize(("mesh", "groups"), [("fsdp=2,tp=2", 2), ("dp=2", 2), ("tp=2", 1), ("cp=2", 2), ("pp=2", 2)])
def test_who_draws_alike(ranks, mesh, groups):
    found = on(ranks, mesh).run(dropout_cases.drawn, mesh=mesh)
    first, second, behind = zip(*found, strict=True)
    assert len({tuple(numbers) for numbers in first}) == len({tuple(numbers) for numbers in second}) == groups
    assert not {tuple(numbers) for numbers in first} & {tuple(numbers) for numbers in second}
    assert len({tuple(numbers) for numbers in behind}) == 1, "what a checkpoint holds is every rank's"


@pytest.mark.parametrize(
    ("mesh", "axes"), [("dp=2", (2, 1)), ("fsdp=2", (1, 2)), ("tp=2", (1, 1)), ("fsdp=2,tp=2", (1, 2))]
)
@pytest.mark.parametrize("kept", ["none", pytest.param("full", marks=pytest.mark.slow)])
def test_gradients_are_those_of_the_ranks_masks(ranks, mesh, axes, kept):
    training = Training(dtype="float64", activation_checkpointing=kept)
    for difference in on(ranks, mesh).run(dropout_cases.gradients, mesh=mesh, training=training, axes=axes):
        assert difference < 1e-10


@pytest.mark.parametrize("mesh", ["pp=2", "cp=2", "pp=2,tp=2"])
def test_stages_and_positions_drop_too(ranks, mesh):
    found = on(ranks, mesh).run(dropout_cases.norms, mesh=mesh, training=Training())
    assert all(norms == found[0] for norms in found), "one gradient, on all ranks"
    with_dropout, without = found[0]
    assert 0.01 < abs(with_dropout - without) / without < 1.0
