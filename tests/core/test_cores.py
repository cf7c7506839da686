"""Cores: affinity, siblings that share a core, and a container's quota."""

import os

import pytest

from nano_llama.core.cores import usable_cores


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Eight logical processors on four cores, all allowed."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    for cpu in range(8):
        topology = tmp_path / "cpus" / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    (tmp_path / "cgroup" / "cpu").mkdir(parents=True)
    return tmp_path


def cores(machine):
    return usable_cores(machine / "cpus", machine / "cgroup")


def test_two_threads_of_a_core_count_once(machine):
    assert cores(machine) == 4


def test_affinity_counts(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 2})
    assert cores(machine) == 2


@pytest.mark.parametrize(("quota", "expected"), [("max 100000", 4), ("250000 100000", 2), ("50000 100000", 1)])
def test_a_containers_quota_counts(machine, quota, expected):
    (machine / "cgroup" / "cpu.max").write_text(quota + "\n")
    assert cores(machine) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 4), ("300000", 3)])
def test_the_older_control_groups_count(machine, quota, expected):
    (machine / "cgroup" / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (machine / "cgroup" / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores(machine) == expected


def test_there_is_at_least_one_here():
    assert usable_cores() >= 1
