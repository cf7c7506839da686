"""Runs as torchrun and the recipes start them, and what tests do to their processes.

The fixture `recipe` of tests/parallel/conftest.py starts them, by an interpreter that has imported torch already.
"""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from helpers.parallel.preloaded import pid_of_fork
from nano_llama.core.files import write_json
from nano_llama.training.metrics import read_metrics
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.trainer import Trainer

ROOT = Path(__file__).parents[3]
RECIPES = ROOT / "recipes/parallel"
STEPS = 60
LONG = ("--max-steps", "1000000", "--set", "evaluations=0", "--set", "checkpoint_minutes=0.01")  # until it is ended
WITHIN = 240  # seconds that a test waits for anything, on a machine with other work


class Recipe:
    """A train.json of a short run, that run's losses in one process, step by step, and the `python` that starts it."""

    def __init__(self, tale: Path, folder: Path, python: Path):
        self.python = python
        self.settings = TrainSettings(
            data=str(tale), tokenizer="char", model="tiny", num_hidden_layers=2, context=16, batch_size=8, lr=0.01,
            accumulate=4,
            max_steps=STEPS, evaluations=6, log_every=1, samples=0, device="cpu", precision="fp32", compile="off",
            num_threads=1, checkpoint_minutes=10,
        )  # fmt: skip
        self.config = folder / "train.json"
        write_json(self.config, self.settings.to_json())
        self.fit(folder / "alone")
        self.losses = losses(folder / "alone")

    def fit(self, out: Path, **changes) -> None:
        """The run in this process."""
        Trainer(self.settings.replace(**changes), out).fit()

    def words(self, out: Path, *more) -> list:
        """Of the command line, after `train`."""
        return ["--config", self.config, "--out", out, "--quiet", *more]

    def started(self, command: list, **more: str) -> "Started":
        """more: variables of the environment."""
        STARTED.append(Started(command, {"PYTHON": str(self.python), **more}, self.python.parent))
        return STARTED[-1]

    def torchrun(self, *words, processes: int = 2, restarts: int = 0) -> "Started":
        """words: of `python`, in so many processes."""
        options = ["--nproc-per-node", str(processes), "--max-restarts", str(restarts)]
        return self.started([self.python, "-m", "torch.distributed.run", *options, *words])

    def same(self, run: Path) -> None:
        """Assert that the run there has these losses, as if nothing had happened."""
        found = losses(run)[:STEPS]
        assert len(found) == STEPS and np.abs(np.subtract(found, self.losses)).max() <= 1e-5


def losses(run: Path) -> list[float]:
    return [row["train_loss"] for row in read_metrics(run / "metrics.jsonl")]


def steps(run: Path) -> int:
    """How many the run there has made; 0: it has not begun."""
    return len((run / "metrics.jsonl").read_text().splitlines()) if (run / "metrics.jsonl").exists() else 0


class Started(subprocess.Popen):
    """A torchrun, or a script that becomes one. What it prints, errors too, is its stdout."""

    def __init__(self, command: list, more: dict[str, str], forks: Path):
        ours = {"PYTHONPATH": str(ROOT), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        super().__init__(
            command, env={**os.environ, **ours, **more}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.forks = forks


STARTED: list[Started] = []  # by the test that runs: tests/parallel/conftest.py ends what it leaves behind


def ended(process: Started) -> str:
    """Wait for its end -> what it has printed."""
    try:
        return process.communicate(timeout=WITHIN)[0]
    except subprocess.TimeoutExpired:
        end(process)
        raise AssertionError(f"still running after {WITHIN} s:\n{process.communicate()[0]}") from None


def workers(agent: Started) -> list[int]:
    """The processes that a torchrun has started, by rank."""
    parent = str(pid_of_fork(agent.forks, agent.pid))
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", parent], capture_output=True, text=True).stdout
    return [int(pid) for pid in listed.split()]


def end(agent: Started) -> None:
    """kill -9 a torchrun and its processes: their machine is lost."""
    for pid in (*workers(agent), pid_of_fork(agent.forks, agent.pid), agent.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def until(happened, agent: Started) -> None:
    """Wait for it while the agent lives."""
    deadline = time.monotonic() + WITHIN
    while not happened():
        assert agent.poll() is None, f"it ended before:\n{agent.communicate()[0]}"
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def said(printed: str) -> list[str]:
    """The lines that nano-llama's errors begin with."""
    return [line for line in printed.splitlines() if line.startswith(("error: ", "Stopped by "))]
