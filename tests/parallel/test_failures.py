"""Started runs of which one rank fails or hangs, or that are refused or told to stop: what is said, and what is kept.

pytest -n 0 -m "parallel and slow" tests/parallel/test_failures.py
"""

import os
import signal
import socket
import time

import pytest

pytest.importorskip("torch")

from helpers.parallel.started import LONG, ROOT, ended, said, steps, until, workers
from nano_llama.training.checkpoint import list_checkpoints

pytestmark = [pytest.mark.parallel, pytest.mark.slow]
TRAIN = ("-m", "nano_llama", "train")


def resumed(recipe, out):
    """Going on with the run there, by itself, ends as if nothing had happened."""
    agent = recipe.torchrun(*TRAIN, *recipe.words(out, "--mesh", "dp=2", "--resume"))
    printed = ended(agent)
    assert agent.returncode == 0, printed
    recipe.same(out)


@pytest.mark.parametrize(("rank", "mesh", "size"), [(0, "dp=2", 2), (3, "fsdp=2,tp=2", 4)])
def test_a_rank_that_hangs_is_named_within_the_time_out(recipe, tmp_path, rank, mesh, size):
    """Whichever groups of ranks wait for it."""
    out = tmp_path / "run"
    words = recipe.words(out, "--mesh", mesh, *LONG, "--mesh-timeout", "3")
    agent = recipe.torchrun(*TRAIN, *words, processes=size)
    until(lambda: list_checkpoints(out / "checkpoints"), agent)
    pids = workers(agent)
    os.kill(pids[rank], signal.SIGSTOP)
    until(lambda: len(workers(agent)) < size, agent)  # torchrun gives a stopped process half a minute
    os.kill(pids[rank], signal.SIGKILL)
    printed = ended(agent)
    assert agent.returncode == 1
    assert len(said(printed)) == 1, printed
    assert f"Rank {rank} (on {socket.gethostname()}) of {size} does not answer" in printed
    assert list_checkpoints(out / "checkpoints")


def test_a_full_disk_on_one_rank_stops_all_with_what_was_kept(recipe, tmp_path):
    """The first rank alone writes; its disk is full after ten steps."""
    out, script = tmp_path / "run", str(ROOT / "tests/helpers/parallel/full_disk.py")
    agent = recipe.torchrun(script, "10", "train", *recipe.words(out, "--mesh", "dp=2"))
    printed = ended(agent)
    assert agent.returncode == 1
    assert len(said(printed)) == 1 and "This was rank 0 of 2, on " in printed, printed
    assert "No space left on device" in printed or "disk is full" in printed, printed
    assert [path.name for path in list_checkpoints(out / "checkpoints")] == ["step-00000010"]
    resumed(recipe, out)


def test_what_all_ranks_refuse_is_said_once(recipe, tmp_path):
    """Before they join, and after."""
    for words, expected in (
        (["--mesh", "dp=3"], "mesh: dp=3 needs 3"),
        (["--mesh", "fsdp=2", "--set", "optimizer=adafactor"], "adafactor"),
    ):
        agent = recipe.torchrun(*TRAIN, *recipe.words(tmp_path / "run", *words), restarts=2)
        printed = ended(agent)
        assert agent.returncode == 1 and len(said(printed)) == 1 and expected in said(printed)[0], printed
        assert "exitcode: 2" in " ".join(printed.split()).replace("exitcode :", "exitcode:"), printed


def test_a_run_that_is_there_is_not_taken_for_the_killed_one(recipe, tmp_path):
    """Restarted processes resume what their torchrun has begun, and nothing else."""
    (out := tmp_path / "run").mkdir()
    (out / "train.json").write_text(recipe.config.read_text())
    a_minute_ago = time.time() - 60
    os.utime(out / "train.json", (a_minute_ago, a_minute_ago))
    before = (out / "train.json").stat().st_mtime_ns
    agent = recipe.torchrun(*TRAIN, *recipe.words(out), restarts=1)
    printed = ended(agent)
    assert agent.returncode == 1 and len(said(printed)) == 1 and "already holds a run" in said(printed)[0], printed
    assert (out / "train.json").stat().st_mtime_ns == before and len(list(out.iterdir())) == 1


def test_torchrun_told_to_stop_stops_within_its_grace_and_the_run_is_resumed(recipe, tmp_path):
    """Twice: what one signal has stopped is resumed, until the other comes."""
    out, more = tmp_path / "run", []
    for number, step in ((signal.SIGINT, 5), (signal.SIGTERM, 20)):
        agent = recipe.torchrun(*TRAIN, *recipe.words(out, "--mesh", "dp=2", *more))
        until(lambda step=step: steps(out) >= step, agent)
        agent.send_signal(number)
        begin = time.monotonic()
        printed = ended(agent)
        assert time.monotonic() - begin < 30 and "forcefully exiting" not in printed, "torchrun kills after 30 s"
        assert len(said(printed)) == 1 and said(printed)[0].startswith("Stopped by "), printed
        more = ["--resume"]
    resumed(recipe, out)
