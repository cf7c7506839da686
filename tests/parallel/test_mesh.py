"""The grid of ranks, in two and four processes; what a rank that fails says; what torchrun tells a process."""

import pytest
import torch

from helpers.parallel import mesh_cases
from helpers.parallel.ranks import CaseFailed
from nano_llama.core import env
from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.vol2_torch.parallel.mesh import backend_for, device_of_rank, process_group

TORCHRUN = {
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500", "TORCHELASTIC_RESTART_COUNT": "2",
}  # fmt: skip


@pytest.mark.parallel
def test_the_last_axis_counts_fastest(ranks):
    found = ranks(4).run(mesh_cases.coordinates, mesh="tp=2,dp=2")
    assert [(places["dp"], places["tp"]) for places, _, _ in found] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [batch for _, batch, _ in found] == [(0, 2), (0, 2), (1, 2), (1, 2)]
    assert all(used == ("dp", "tp") for _, _, used in found)


@pytest.mark.parallel
def test_axes_of_the_same_ranks_share_a_group_on_all_meshes(ranks):
    for same, made in ranks(4).run(mesh_cases.groups, meshes=["dp=2,tp=2", "fsdp=2,cp=2", "pp=2,dp=2", "tp=4"]):
        assert same, "as torch.distributed.device_mesh.init_device_mesh has them"
        assert made == 4, "the rank itself, two neighbours, two that are two apart, all"


@pytest.mark.parallel
def test_sums_run_over_the_ranks_of_their_axes(ranks):
    assert ranks(4).run(mesh_cases.sums, mesh="dp=2,tp=2") == [4.0, 6.0, 4.0, 6.0]
    assert ranks(4).run(mesh_cases.sums, mesh="dp=2,fsdp=2") == [10.0] * 4


@pytest.mark.parallel
def test_a_wrong_product_names_the_axes(ranks):
    assert all("dp=3 needs 3" in message for message in ranks(2).run(mesh_cases.wrong_product))


@pytest.mark.parallel
def test_a_process_belongs_to_one_group(ranks):
    launch = env.Launch(rank=0, world_size=1, local_rank=0, local_world_size=1, address="127.0.0.1:0")
    assert ranks(2).run(mesh_cases.second_group, launch=launch) == [2, 2]


@pytest.mark.parallel
def test_a_rank_that_fails_is_named_and_the_next_case_runs(ranks):
    with pytest.raises(CaseFailed, match=r"one_fails: rank 1 of 2 raised(?s:.*)ValueError: rank 1 fails"):
        ranks(2).run(mesh_cases.one_fails, failing=1)
    assert len(ranks(2).run(mesh_cases.coordinates, mesh="dp=2")) == 2


@pytest.mark.parallel
def test_a_rank_that_dies_or_hangs_is_named_and_where_it_was(ranks, monkeypatch):
    with pytest.raises(CaseFailed, match=r"one_dies: the process of rank 1 of 2 ended by SIGSEGV(?s:.*)in one_dies"):
        ranks(2).run(mesh_cases.one_dies, dying=1)
    monkeypatch.setattr("helpers.parallel.ranks.CASE", 5)
    with pytest.raises(CaseFailed, match=r"one_hangs: ranks \[0, 1\] of 2 did not (?s:.*)Rank 1:(?s:.*)in one_hangs"):
        ranks(2).run(mesh_cases.one_hangs, hanging=1)


def test_what_torchrun_says(monkeypatch):
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    assert env.launch() is None
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert env.launch() == env.Launch(
        rank=3, world_size=4, local_rank=1, local_world_size=2, address="10.0.0.1:29500", restarts=2
    )
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(EnvironmentFault, match="MASTER_PORT"):
        env.launch()


def test_ranks_that_do_not_find_each_other_say_where_they_looked(monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")  # where nobody listens
    launch = env.launch()
    assert launch is not None
    with (
        pytest.raises(EnvironmentFault, match=r"Rank 3 of 4 did not find the others at 127\.0\.0\.1:1"),
        process_group(launch, torch.device("cpu"), timeout=0.5),
    ):
        pass


def test_devices_that_ranks_have():
    launch = env.Launch(rank=5, world_size=8, local_rank=1, local_world_size=4, address="a:1")
    assert device_of_rank(torch.device("cpu"), launch) == torch.device("cpu")
    assert backend_for(torch.device("cpu")) == "gloo" and "nccl" in backend_for(torch.device("cuda"))
    with pytest.raises(UserError, match="mps"):
        backend_for(torch.device("mps"))
    if torch.cuda.device_count() < 4:
        with pytest.raises(UserError, match="4 processes were started on a machine with"):
            device_of_rank(torch.device("cuda"), launch)
