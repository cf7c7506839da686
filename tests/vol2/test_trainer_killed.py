"""Kill -9 at any moment, at start-up and while a checkpoint is written too, and `--resume`: the bits of the undisturbed
run, through the command itself.
"""

import hashlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

from nano_llama.training.metrics import MEASURED, read_metrics

RARELY = ("--checkpoint-minutes", 5)  # besides those at evaluations; it changes no bit


def settings(tale, optimizer, steps):
    values = {
        "data": tale, "tokenizer": "char", "model": "tiny", "context": 16, "batch_size": 4, "optimizer": optimizer,
        "lr": 0.01, "max_steps": steps, "accumulate": 2, "ema": 0.9, "dropout": 0.1, "data_workers": 2,
        "evaluations": 3, "log_every": 7, "device": "cpu", "compile": "off", "num_threads": 1,
    }  # fmt: skip
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", value)]


def digest(run):
    """Of the final weights, and of all that a further step would depend on."""
    last = max((run / "checkpoints").glob("step-*"))
    files = [run / "model.safetensors", last / "training.safetensors"]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def curve(run):
    rows = read_metrics(run / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in rows]


def steps(run):
    return {path.name for path in (run / "checkpoints").glob("step-*")}


def wait_until(seen, alive, seconds=300.0):
    begin = time.monotonic()
    while not seen() and alive() and time.monotonic() - begin < seconds:
        time.sleep(0.0005)


def die(command, run, arguments, moment, chance):
    """Start or resume the run and kill it. moment: at start-up, while a checkpoint is written, or between."""
    known = steps(run)
    resume = (run / "train.json").exists()
    often = ("--checkpoint-minutes", 0.0005)
    child = command.start("train", "--out", run, *(["--resume"] if resume else arguments), *often)

    def alive():
        return is_running(child)

    if moment != "start-up":
        wait_until(lambda: steps(run) - known, alive)
    if moment == "writing":
        time.sleep(chance.uniform(0.0, 0.1))
        wait_until(lambda: any((run / "checkpoints").glob(".step-*.tmp")), alive)
        time.sleep(chance.uniform(0.0, 0.003))
    else:
        time.sleep(chance.uniform(0.0, 0.4))
    os.kill(child, signal.SIGKILL)
    return command.end()[0] == -signal.SIGKILL


def is_running(pid):
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return sys.platform != "linux"


def kill_and_resume(command, tale, tmp_path, optimizer, moments, total):
    whole, run = tmp_path / "whole", tmp_path / "killed"
    arguments = settings(tale, optimizer, total)
    code, said = command.run("train", "--out", whole, *arguments, *RARELY)
    assert code == 0, said
    chance = random.Random(7)
    half_written = 0
    for moment in moments:
        assert die(command, run, arguments, moment, chance), "it had ended before the kill"
        half_written += bool(list((run / "checkpoints").glob(".step-*.tmp")))
    assert half_written or "writing" not in moments
    code, said = command.run("train", "--out", run, "--resume", *RARELY)
    assert code == 0, said
    assert digest(run) == digest(whole)
    assert curve(run) == curve(whole)
    assert not list((run / "checkpoints").glob(".*")), "what the kills left half written is gone"


def test_killed_at_start_up_between_and_while_writing(command, tale, tmp_path):
    kill_and_resume(command, tale, tmp_path, "muon", ["start-up", "between", "writing"], total=150)


@pytest.mark.slow  # 42 processes and 1,500 steps; the default suite kills three times
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_killed_twenty_times(command, tale, tmp_path, optimizer):
    moments = random.Random(3).choices(["start-up", "between", "writing"], k=20)
    kill_and_resume(command, tale, tmp_path, optimizer, moments, total=1500)
