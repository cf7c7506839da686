"""Ranks whose clocks differ and of which one is interrupted take the same steps, and the first alone writes."""

import os
import signal
import threading

import pytest

from helpers.training import FakeBackend, FakeTrainer, HandClock
from nano_llama.core.errors import FormatError
from nano_llama.training import checkpoint
from nano_llama.training.checkpoint import list_checkpoints
from nano_llama.training.metrics import read_metrics
from nano_llama.training.outcome import TrainingInterrupted
from nano_llama.training.ranks import OneProcess, of_first


class Threads:
    """The ranks of `size` threads, as if of one machine: each waits until all have brought their value."""

    def __init__(self, rank, size, values, barrier):
        self.rank, self.size, self.values, self.barrier = rank, size, values, barrier
        self.first_of_machine = rank == 0

    def gathered(self, value):
        self.barrier.wait(60)
        self.values[self.rank] = value
        self.barrier.wait(60)
        found = list(self.values)
        self.barrier.wait(60)
        return found


def run_together(settings, out, size, seconds, *, interrupt=None, resume=False):
    """A run of FakeBackend in `size` threads -> each rank's loop. seconds: that a step takes, by rank.

    interrupt: (rank, step) at which a signal arrives.
    """
    barrier, values = threading.Barrier(size), [0.0] * size
    loops, problems = [None] * size, []

    class Noting(FakeBackend):
        def update(self, lr):
            self.rates = [*getattr(self, "rates", []), lr]
            super().update(lr)

    def one(rank):
        try:
            loop = loops[rank] = FakeTrainer(
                settings, out, engine=Noting, changes={"seconds": seconds[rank]}, clock=HandClock(),
                ranks=Threads(rank, size, values, barrier), resume=resume,
            )  # fmt: skip
            if interrupt and interrupt[0] == rank:
                update = loop.backend.update

                def interrupted(lr):
                    if loop.state.step + 1 == interrupt[1]:
                        loop.interrupt.signal = signal.SIGTERM
                    update(lr)

                loop.backend.update = interrupted
            loop.fit()
        except BaseException as error:
            problems.append(error)
            if not isinstance(error, TrainingInterrupted):
                barrier.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return loops, problems


@pytest.mark.parametrize("seconds", [(0.5, 0.5, 0.5), (0.5, 0.9, 0.1), (0.7, 0.1, 3.0)])
def test_the_first_rank_s_time_counts(settings, tmp_path, seconds):
    by_the_clock = settings.replace(max_minutes=0.5, evaluations=3, checkpoint_minutes=0.1, sample_tokens=4)
    loops, problems = run_together(by_the_clock, tmp_path / "run", 3, seconds)
    assert not problems
    assert len({loop.state.step for loop in loops}) == 1 and loops[0].state.step > 5
    assert len({tuple(loop.backend.rates) for loop in loops}) == 1, "every rank has the same learning rates"
    assert len({loop.state.val_loss for loop in loops}) == 1


def test_the_first_alone_writes_what_one_process_writes(settings, tmp_path):
    _, problems = run_together(settings, tmp_path / "run", 2, (0.1, 0.2))
    assert not problems
    FakeTrainer(settings, tmp_path / "alone", clock=HandClock()).fit()
    names = [sorted(path.name for path in (tmp_path / run).rglob("*")) for run in ("run", "alone")]
    assert names[0] == names[1]
    for file in ("model.safetensors", "samples.md", "checkpoints/step-00000020/training.safetensors"):
        assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "alone" / file).read_bytes(), file


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_signal_to_any_rank_stops_all_and_is_resumed(settings, tmp_path, rank):
    loops, problems = run_together(settings, tmp_path / "run", 3, (0.1, 0.2, 0.1), interrupt=(rank, 7))
    assert [type(problem) for problem in problems] == [TrainingInterrupted] * 3
    assert [loop.state.step for loop in loops] == [7] * 3
    loops, problems = run_together(settings, tmp_path / "run", 3, (0.1, 0.2, 0.1), resume=True)
    assert not problems and [loop.resumed_at for loop in loops] == [7] * 3
    FakeTrainer(settings, tmp_path / "alone", clock=HandClock()).fit()
    losses = [
        [row["train_loss"] for row in read_metrics(tmp_path / run / "metrics.jsonl") if row["step"] in (10, 20)]
        for run in ("run", "alone")
    ]
    assert losses[0][-1] == losses[1][-1]


def test_the_first_rank_reads_a_checkpoint_s_checksums_and_all_take_the_same(settings, tmp_path, monkeypatch):
    run_together(settings.replace(keep_checkpoints=3), tmp_path / "run", 2, (0.1, 0.2), interrupt=(1, 13))
    *_, before, newest = list_checkpoints(tmp_path / "run/checkpoints")
    with (newest / checkpoint.TENSORS).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    read, sha256 = [], checkpoint._sha256
    monkeypatch.setattr(checkpoint, "_sha256", lambda path: read.append(path) or sha256(path))
    more = settings.replace(max_steps=14, evaluations=0)
    loops, problems = run_together(more, tmp_path / "run", 3, (0.1, 0.2, 0.1), resume=True)
    resumed_at = checkpoint.checkpoint_step(before)
    assert not problems and [loop.resumed_at for loop in loops] == [resumed_at] * 3
    of_it = [path for path in read if path.parent == before]
    assert len(of_it) == len(set(of_it)) > 2, "each file once"


def test_ranks_wait_for_each_other_once_a_step_to_hear_of_a_signal(settings, tmp_path, monkeypatch):
    """Each question is a gather over the network. A checkpoint by the clock is the other one."""
    asked = []
    monkeypatch.setattr(OneProcess, "gathered", lambda self, value: asked.append(value) or [value])
    counts = []
    for steps in (10, 20):
        asked.clear()
        more = settings.replace(max_steps=steps, evaluations=0, log_every=100)
        FakeTrainer(more, tmp_path / f"run{steps}", clock=HandClock(), ranks=OneProcess()).fit()
        counts.append(len(asked))
    assert counts[1] - counts[0] == 2 * 10


def test_one_process_waits_for_nobody():
    assert OneProcess().gathered(3.0) == [3.0] and of_first(OneProcess(), 0.25) == 0.25


def test_every_rank_ends_with_the_same_model_where_the_loss_rose(settings, tmp_path, monkeypatch):
    """The first rank alone reads and writes; if it cannot read the best checkpoint, all give the last weights."""
    gathers = []

    def weights(self):
        gathers.append(self.updates)
        return self.params

    def rising(self, tokens, targets):
        return float(self.updates) * float((targets != -100).sum())

    monkeypatch.setattr(FakeBackend, "weights", weights)
    monkeypatch.setattr(FakeBackend, "eval_loss_sum", rising)
    _, problems = run_together(settings, tmp_path / "run", 2, (0.1, 0.3))
    assert not problems and read_metrics(tmp_path / "run/metrics.jsonl")[-1]["model_step"] == 10
    model, best, last = (
        (tmp_path / "run" / part / "model.safetensors").read_bytes()
        for part in ("", "checkpoints/step-00000010", "checkpoints/step-00000020")
    )
    assert model == best != last
    assert sorted(gathers) == [10, 10, 20, 20], "for checkpoints alone, by both ranks"
    gathers.clear()
    monkeypatch.setattr("nano_llama.training.final_model.copy_model", damaged)
    _, problems = run_together(settings, tmp_path / "damaged", 2, (0.1, 0.3))
    assert not problems and "model_step" not in read_metrics(tmp_path / "damaged/metrics.jsonl")[-1]
    assert sorted(gathers) == [10, 10, 20, 20, 20, 20], "and by both for the model"


def damaged(checkpoint, folder):
    raise FormatError(f"{checkpoint}: damaged.")
