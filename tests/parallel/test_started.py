"""Processes as torchrun and the recipes start them: killed and restarted, on two hosts, under Slurm.

The hosts are two addresses of the loopback interface; Slurm's commands are stubs. These take minutes:
pytest -n 0 -m "parallel and slow" tests/parallel/test_started.py
"""

import os
import random
import signal
import sys
import time

import numpy as np
import pytest

pytest.importorskip("torch")

from helpers.parallel.started import (
    LONG,
    RECIPES,
    STEPS,
    end,
    ended,
    losses,
    said,
    steps,
    until,
    workers,
)
from nano_llama.training.checkpoint import list_checkpoints
from nano_llama.training.metrics import read_metrics

pytestmark = [pytest.mark.parallel, pytest.mark.slow]


@pytest.mark.parametrize(("mesh", "kills", "while_starting"), [("dp=2", 3, True), ("fsdp=2", 1, False)])
def test_killed_workers_are_restarted_and_the_losses_are_the_same(recipe, tmp_path, mesh, kills, while_starting):
    """At random steps a random worker is killed, and after the first of them another one while they start again: five
    kills in all, most of them where a restart takes least."""
    out, chance = tmp_path / "run", random.Random(len(mesh))
    agent = recipe.torchrun("-m", "nano_llama", "train", *recipe.words(out, "--mesh", mesh), restarts=6)
    moments = sorted(chance.sample(range(2, STEPS - 10), kills))
    for moment in moments:
        until(lambda moment=moment: steps(out) >= moment, agent)
        before = workers(agent)
        os.kill(chance.choice(before), signal.SIGKILL)
        until(lambda before=before: len(set(workers(agent)) - set(before)) == 2, agent)
        if while_starting and moment == moments[0]:
            time.sleep(4 * chance.random())
            os.kill(chance.choice(workers(agent)), signal.SIGKILL)
    printed = ended(agent)
    assert agent.returncode == 0, printed
    recipe.same(out)


def hosts(recipe, words, machines="2", addresses=("127.0.0.1", "127.0.0.2"), port="29613", **more):
    """The recipe on each host, as docs/parallel.md has it."""
    return [
        recipe.started(
            [RECIPES / "hosts.sh", "--", *words],
            ADDRESS=address, FIRST="127.0.0.1", INTERFACE="lo", PORT=port, MACHINES=machines, **more,
        )
        for address in addresses
    ]  # fmt: skip


def meshes(out):
    """Of the steps that the run there has made."""
    return [row["mesh"] for row in read_metrics(out / "metrics.jsonl")]


def test_the_recipe_for_two_hosts(recipe, tmp_path):
    """With the real interpreter."""
    out = tmp_path / "run"
    both = hosts(recipe, recipe.words(out, "--mesh", "dp=2", "--mesh-timeout", "100"), PYTHON=sys.executable)
    printed = [ended(host) for host in both]
    assert [host.returncode for host in both] == [0, 0], printed
    recipe.same(out)
    more = ["--out", out, "--resume", "--quiet", "--max-steps", str(STEPS + 5)]
    alone = recipe.started([recipe.python, "-m", "nano_llama", "train", *more])
    printed = ended(alone)
    assert alone.returncode == 0, printed
    assert read_metrics(out / "metrics.jsonl")[-1]["step"] == STEPS + 5, "without what is for many"


def test_a_lost_host_leaves_the_other_going_on(recipe, tmp_path):
    """MACHINES=1:2, and no mesh: the second host's processes are killed, and the first one goes on by itself."""
    out = tmp_path / "run"
    first, second = hosts(recipe, recipe.words(out), machines="1:2", port="29615")
    until(lambda: steps(out) >= 15, first)
    end(second)
    printed = ended(first)
    assert first.returncode == 0, printed
    assert len(said(printed)) == 1 and "Rank 1 (on " in said(printed)[0], printed
    recipe.same(out)
    assert (meshes(out)[0], meshes(out)[-1]) == ("dp=2", "dp=1"), "by itself in the end"


def test_a_lost_host_that_comes_back_joins_the_other_again(recipe, tmp_path):
    """The first host's processes have been restarted meanwhile, those of the second are new. The rates of the steps do
    not depend on how many there will be, so that the run can be longer than this takes."""
    out, port = tmp_path / "run", "29616"
    alike = {"warmup": 0, "schedule": "constant"}
    words = recipe.words(out, *LONG, *(word for name, value in alike.items() for word in ("--set", f"{name}={value}")))
    first, second = hosts(recipe, words, machines="1:2", port=port)
    until(lambda: list_checkpoints(out / "checkpoints"), first)  # else it would begin anew
    end(second)
    until(lambda: meshes(out)[-1:] == ["dp=1"], first)
    (again,) = hosts(recipe, words, machines="1:2", addresses=["127.0.0.2"], port=port)
    until(lambda: meshes(out)[-1:] == ["dp=2"], first)
    first.send_signal(signal.SIGTERM)
    printed = [ended(host) for host in (first, again)]
    found = losses(out)
    assert meshes(out)[0] == "dp=2" and "dp=1" in meshes(out), printed
    recipe.fit(tmp_path / "as_long", **alike, evaluations=0, max_steps=len(found))
    apart = np.abs(np.subtract(found, losses(tmp_path / "as_long")))
    assert apart[:STEPS].max() <= 1e-5 and apart.max() <= 1e-3, "rounding grows over hundreds of steps"


def test_the_first_host_lost_is_told_and_the_run_resumed(recipe, tmp_path):
    """It keeps the rendezvous, so the others cannot go on: they end, and the run is resumed when it is back."""
    out = tmp_path / "run"
    first, second = hosts(recipe, recipe.words(out), machines="1:2", port="29617")
    until(lambda: steps(out) >= 15, first)
    end(first)
    printed = ended(second)
    assert second.returncode == 1 and len(said(printed)) == 1, printed
    assert "Rank 0 (on " in said(printed)[0]
    both = hosts(recipe, recipe.words(out, "--resume"), port="29618")
    printed = [ended(host) for host in both]
    assert [host.returncode for host in both] == [0, 0], printed
    recipe.same(out)


@pytest.fixture
def slurm(tmp_path):
    """Variables of a job of two tasks. `scontrol` names this machine, and writes down what is queued again."""
    stubs = tmp_path / "bin"
    stubs.mkdir()
    (stubs / "scontrol").write_text(
        f'#!/bin/sh\n[ $1 = requeue ] && echo "$2" >> {tmp_path}/requeued && exit\necho 127.0.0.1\necho 127.0.0.2\n'
    )
    (stubs / "srun").write_text(
        '#!/bin/bash\n"$@" & one=$!\n"$@" & two=$!\ntrap "kill -TERM $one $two" TERM\n'
        "wait $one; a=$?; wait $two; b=$?\nwait\nexit $((a | b))\n"
    )
    for stub in stubs.iterdir():
        stub.chmod(0o755)
    return {
        "SLURM_JOB_NODELIST": "a[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "7", "PORT": "29614",
        "PATH": f"{stubs}:{os.environ['PATH']}", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip


def test_the_script_for_slurm(recipe, tmp_path, slurm):
    """Its time is over, so that it is told to stop: saved and queued again. The same job then resumes."""
    out = tmp_path / "run"
    script = [RECIPES / "slurm.sbatch", *recipe.words(out, "--mesh", "dp=2")]
    job = recipe.started(script, **slurm)
    until(lambda: steps(out) >= 5, job)
    job.send_signal(signal.SIGTERM)
    printed = ended(job)
    assert job.returncode != 0 and said(printed)[0].startswith("Stopped by SIGTERM"), printed
    assert (tmp_path / "requeued").read_text() == "7\n"
    again = recipe.started(script, **slurm)
    printed = ended(again)
    assert again.returncode == 0, printed
    recipe.same(out)
    assert (tmp_path / "requeued").read_text() == "7\n", "not once more"
