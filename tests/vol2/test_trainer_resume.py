"""A run that is killed at any moment and resumed ends with the bits of an undisturbed one."""

import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nano_llama.core.formats import open_weights  # noqa: E402
from nano_llama.core.training.metrics import read_metrics  # noqa: E402
from nano_llama.vol2_torch.trainer import Trainer  # noqa: E402

CHILD = """
import json, sys
from nano_llama.core.training.settings import TrainSettings
from nano_llama.vol2_torch.trainer import Trainer
settings = TrainSettings.from_json(json.loads(sys.argv[1]))
Trainer(settings, sys.argv[2], resume=sys.argv[3] == "resume").fit()
"""


def weights(folder):
    with open_weights(folder) as saved:
        return {name: np.array(saved[name]).tobytes() for name in saved}


def losses(folder):
    return [(row["step"], row["train_loss"], row.get("val_loss")) for row in read_metrics(folder / "metrics.jsonl")]


def start_and_kill(settings, out, resume, seconds):
    """Let a child train until `seconds` after its first checkpoint, then kill -9. True when it was still at work."""
    word = "resume" if resume else "new"
    child = subprocess.Popen([sys.executable, "-c", CHILD, json.dumps(settings.to_json()), str(out), word])
    known = set((out / "checkpoints").glob("step-*"))
    while child.poll() is None and not set((out / "checkpoints").glob("step-*")) - known:
        time.sleep(0.01)
    time.sleep(seconds)
    at_work = child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    return at_work


SCHEDULE_FREE = {"optimizer": "schedulefree", "schedule": "constant"}
KINDS = [{"optimizer": name} for name in ("adamw", "muon", "lion", "adafactor")]
KINDS += [{"optimizer": "adamw", "ema": 0.9}, {"optimizer": "muon", "ema": 0.9}, SCHEDULE_FREE]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(str(value) for value in kind.values()))
def test_stopped_between_any_two_steps(recipe, tmp_path, kind):
    if kind is SCHEDULE_FREE:
        pytest.importorskip("schedulefree")
    settings = recipe.replace(evaluations=4, accumulate=2, **kind)
    Trainer(settings, tmp_path / "whole").fit()
    expected, curve = weights(tmp_path / "whole"), losses(tmp_path / "whole")

    class Stop(BaseException):
        pass

    for stop in (2, 5, 11):
        trainer = Trainer(settings, tmp_path / f"run{stop}")
        step = trainer.train_step

        def train_step(batches, lr, trainer=trainer, step=step, stop=stop):
            if trainer.step == stop:
                raise Stop
            return step(batches, lr)

        trainer.train_step = train_step
        with pytest.raises(Stop):
            trainer.fit()
        torch.manual_seed(99)  # whatever happened in between
        Trainer(settings, tmp_path / f"run{stop}", resume=True).fit()
        assert weights(tmp_path / f"run{stop}") == expected, stop
        assert losses(tmp_path / f"run{stop}") == curve


def kill_and_resume(recipe, tmp_path, kills, steps=250):
    settings = recipe.replace(
        optimizer="muon",
        max_steps=steps,
        checkpoint_minutes=0.5 / 60,
        evaluations=3,
        log_every=7,
        accumulate=2,
        data_workers=1,
    )
    Trainer(settings, tmp_path / "whole").fit()
    ended = tmp_path / f"killed/checkpoints/step-{steps:08d}"
    moments = random.Random(7)
    killed = 0
    for attempt in range(kills):
        killed += start_and_kill(settings, tmp_path / "killed", attempt > 0, moments.uniform(0.0, 0.3))
        if ended.exists():
            break
    if not ended.exists():
        trainer = Trainer(settings, tmp_path / "killed", resume=True)
        assert trainer.resumed_at > 0
        trainer.fit()
    assert killed, "it was never killed at work"
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert not list((tmp_path / "killed/checkpoints").glob(".*")), "what the kill left half written is gone"


def test_killed_once(recipe, tmp_path):
    kill_and_resume(recipe, tmp_path, kills=1)


@pytest.mark.slow
def test_killed_twenty_times(recipe, tmp_path):
    kill_and_resume(recipe, tmp_path, kills=20, steps=2500)
