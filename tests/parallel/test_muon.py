"""Muon over many ranks, of matrices that are cut or copied in every way, against Muon in one process."""

import pytest

from helpers.parallel import muon_cases
from nano_llama.vol2_torch.parallel.matrix_parts import Part
from nano_llama.vol2_torch.parallel.owner_muon import senders

MESHES = ["dp=2", "fsdp=2", "tp=2", "dp=2,fsdp=2", "fsdp=2,tp=2", "dp=2,tp=2", "fsdp=4", "tp=4", "dp=4"]
STEPS = 3


def world_size(mesh: str) -> int:
    sizes = [int(part.partition("=")[2]) for part in mesh.split(",")]
    return sizes[0] * (sizes[1] if len(sizes) > 1 else 1)


@pytest.mark.parallel
@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("kind", ["owner", "naive"])
def test_updates_are_those_of_one_process(ranks, mesh, kind):
    """And of the owners each matrix is orthogonalized once: the ranks share them."""
    answers = ranks(world_size(mesh)).run(muon_cases.updates, mesh=mesh, kind=kind, steps=STEPS)
    for found, _, _ in answers:
        assert all(difference < 1e-6 for difference in found.values()), found
    if kind == "owner":
        counts, matrices = [count // STEPS for _, count, _ in answers], answers[0][2]
        assert sum(counts) == matrices
        assert max(counts) == -(-matrices // len(answers))


def test_each_part_is_sent_once():
    top, bottom, whole = Part((0, 2), (0, 4)), Part((2, 4), (0, 4)), Part((0, 4), (0, 4))
    assert senders([top, bottom, top, bottom], 0) == {0, 1}
    assert senders([top, bottom, top, bottom], 3) == {0, 3}  # the owner's own copy
    assert senders([whole] * 4, 2) == {2}
