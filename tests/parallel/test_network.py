"""Addresses and interfaces of this machine, against what the system itself lists."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nano_llama.vol2_torch.parallel import network

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="interfaces are asked for by Linux's means")


def test_the_default_address_is_one_of_this_machine():
    address = network.default_address()
    with socket.socket() as probe:
        probe.bind((address, 0))


def test_loopback():
    assert network.address_of("lo") == "127.0.0.1"
    assert network.interface_of("127.0.0.1") == "lo"
    assert network.address_of("no-such-one") is None
    assert network.interface_of("203.0.113.7") is None


def test_the_user_sees_what_was_picked_and_how_to_change_it(monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    picked = network.describe("gloo")
    assert network.default_address() in picked and "GLOO_SOCKET_IFNAME chooses another" in picked
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    assert network.describe("gloo") == "address 127.0.0.1, interface lo (set by GLOO_SOCKET_IFNAME)"
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    assert "NCCL_SOCKET_IFNAME chooses another" in network.describe("nccl")


@pytest.mark.skipif(shutil.which("ip") is None, reason="the recipe asks `ip`")
@pytest.mark.parametrize(
    ("address", "chosen", "expected"), [("127.0.0.1", "", "lo"), ("127.0.0.1", "eth7", "eth7"), ("203.0.113.7", "", "")]
)
def test_the_recipe_for_two_hosts_takes_the_interface_that_has_the_address(tmp_path, address, chosen, expected):
    stub = tmp_path / "python"
    stub.write_text('#!/bin/sh\necho "$GLOO_SOCKET_IFNAME|$NCCL_SOCKET_IFNAME"\n')
    stub.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(stub), "ADDRESS": address, "FIRST": "10.0.0.1"}
    script = Path(__file__).parents[2] / "recipes/parallel/hosts.sh"
    done = subprocess.run(
        [script, "--", "--data", "a.txt"], env=environment | ({"INTERFACE": chosen} if chosen else {}),
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == f"{expected}|{expected}\n"
