"""Processes as torchrun and the recipes start them: killed and restarted, on two hosts, under Slurm.

The hosts are two addresses of the loopback interface; Slurm's commands are stubs. These take minutes:
pytest -n 0 -m "parallel and slow" tests/parallel/test_started.py
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from nano_llama.core.files import write_json
from nano_llama.training.metrics import read_metrics
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.trainer import Trainer

pytestmark = [pytest.mark.parallel, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes/parallel"
STEPS = 60


@pytest.fixture
def recipe(tale, tmp_path):
    """A train.json of a short run, and that run's losses in one process."""
    settings = TrainSettings(
        data=str(tale), tokenizer="char", model="tiny", num_hidden_layers=2, context=16, batch_size=8, lr=0.01,
        max_steps=STEPS, evaluations=4, log_every=5, samples=0, device="cpu", precision="fp32", compile="off",
        num_threads=1, checkpoint_minutes=0.05,
    )  # fmt: skip
    write_json(tmp_path / "train.json", settings.to_json())
    Trainer(settings, tmp_path / "alone").fit()
    return tmp_path / "train.json", losses(tmp_path / "alone")


def losses(run):
    return [row["train_loss"] for row in read_metrics(run / "metrics.jsonl")]


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, **more}


def workers(agent):
    """The processes that a torchrun has started."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(agent)], capture_output=True, text=True).stdout.split()
    return [int(pid) for pid in children]


def same(run, expected):
    assert np.abs(np.subtract(losses(run), expected)).max() <= 1e-5


@pytest.mark.parametrize("mesh", ["dp=2", "fsdp=2"])
def test_killed_workers_are_restarted_and_the_losses_are_the_same(recipe, tmp_path, mesh):
    config, expected = recipe
    out, chance = tmp_path / "run", random.Random(len(mesh))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "20"]
    command = [*torchrun, "-m", "nano_llama", "train", "--config", config, "--out", out, "--mesh", mesh, "--quiet"]
    agent = subprocess.Popen(command, env=environment(TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1"))
    killed = 0
    while agent.poll() is None:
        seen = len(list(out.glob("checkpoints/step-*")))
        deadline = time.monotonic() + 60
        while agent.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
            if len(list(out.glob("checkpoints/step-*"))) != seen:
                break
        time.sleep(chance.random())
        pids = workers(agent.pid)
        if killed < 5 and pids:
            os.kill(chance.choice(pids), signal.SIGKILL)
            killed += 1
    assert agent.returncode == 0 and killed >= 1
    same(out, expected)


def test_the_recipe_for_two_hosts(recipe, tmp_path):
    config, expected = recipe
    hosts = [
        subprocess.Popen(
            [RECIPES / "hosts.sh", "--", "--config", config, "--out", tmp_path / "run", "--mesh", "dp=2", "--quiet"],
            env=environment(ADDRESS=address, FIRST="127.0.0.1", INTERFACE="lo", PORT="29613"),
        )
        for address in ("127.0.0.1", "127.0.0.2")
    ]
    assert [host.wait(300) for host in hosts] == [0, 0]
    same(tmp_path / "run", expected)
    alone = [sys.executable, "-m", "nano_llama", "train", "--out", tmp_path / "run", "--resume", "--quiet"]
    assert subprocess.run([*alone, "--max-steps", str(STEPS + 5)], env=environment(), timeout=200).returncode == 0
    assert read_metrics(tmp_path / "run/metrics.jsonl")[-1]["step"] == STEPS + 5, "without its mesh"


def test_the_script_for_slurm(recipe, tmp_path):
    """Two tasks; `scontrol` names this machine; a job that has begun before resumes."""
    config, expected = recipe
    stubs = tmp_path / "bin"
    stubs.mkdir()
    (stubs / "scontrol").write_text("#!/bin/sh\n[ $1 = show ] && echo 127.0.0.1\n[ $1 = show ] && echo 127.0.0.2\n")
    (stubs / "srun").write_text('#!/bin/sh\n"$@" & first=$!\n"$@"; code=$?\nwait $first && exit $code\n')
    for stub in stubs.iterdir():
        stub.chmod(0o755)
    job = {
        "SLURM_JOB_NODELIST": "a[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "7", "PORT": "29614",
        "PATH": f"{stubs}:{os.environ['PATH']}", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    words = ["--config", config, "--out", tmp_path / "run", "--mesh", "fsdp=2", "--quiet"]
    for more in ([], ["--max-steps", str(STEPS + 10)]):
        script = [RECIPES / "slurm.sbatch", *words, *more]
        assert subprocess.run(script, env=environment(**job), timeout=300).returncode == 0
    assert np.abs(np.subtract(losses(tmp_path / "run")[: len(expected)], expected)).max() <= 1e-5
    assert read_metrics(tmp_path / "run/metrics.jsonl")[-1]["step"] == STEPS + 10
