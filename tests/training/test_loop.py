"""The loop, driven by a backend of a few lines: what is written, when, and that a resumed run ends alike."""

import json
import os
import signal

import numpy as np
import pytest

from helpers.training import FakeTrainer
from nano_llama.core.errors import FormatError, UserError
from nano_llama.formats import open_weights, read_config
from nano_llama.training.backend import StepResult
from nano_llama.training.callback import Callback
from nano_llama.training.metrics import MEASURED, read_metrics
from nano_llama.training.outcome import TrainingDiverged, TrainingInterrupted
from nano_llama.training.recorder import Recorder as RunRecorder
from nano_llama.training.settings import TrainSettings

RUN_KEYS = {"step", "tokens", "train_loss", "train_bits_per_byte", "lr", "grad_norm", "deterministic", "kernels"}
KEYS = RUN_KEYS | MEASURED - {"mfu", "attention_ms", "rank_memory_bytes", "rank_data_stall"}  # no peak; one process
VALIDATION_KEYS = {"val_loss", "val_bits_per_byte"}


class Recorder(Callback):
    def __init__(self):
        self.notices, self.steps, self.is_over = [], [], False

    def stepped(self, facts):
        self.steps.append(facts)

    def notice(self, text):
        self.notices.append(text)

    def ended(self):
        self.is_over = True


class Killed(BaseException):
    """As sudden as kill -9: nothing of ours catches it."""


def run(settings, out, clock, *, kill_before=None, resume=False, **arguments):
    trainer = FakeTrainer(settings, out, resume=resume, clock=clock, **arguments)
    if kill_before is not None:
        step = trainer.train_step

        def train_step(batches, lr):
            if trainer.state.step + 1 == kill_before:
                raise Killed
            return step(batches, lr)

        trainer.train_step = train_step
    return trainer, trainer.fit()


def everything(folder):
    with open_weights(folder) as weights:
        return {name: np.array(array) for name, array in weights.items()}


def losses(folder):
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in read_metrics(folder / "metrics.jsonl")]


def test_what_a_run_leaves_behind(settings, tmp_path, hand_clock):
    out = tmp_path / "run"
    callback = Recorder()
    trainer, result = run(settings, out, hand_clock, progress=callback)
    rows = read_metrics(out / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 5, 10, 15, 20]
    for row in rows:
        assert set(row) == (KEYS | VALIDATION_KEYS if row["step"] in (10, 20) else KEYS)
        assert row["tokens"] == row["step"] * 4 * 16
    assert rows[1]["train_loss"] == pytest.approx(np.mean([4 / 2, 4 / 3, 4 / 4, 4 / 5]), abs=1e-2), (
        "the mean of steps 2-5"
    )
    assert rows[2]["tokens_per_second"] == pytest.approx(64 / 0.1)
    vocabulary = trainer.config.vocab_size
    assert rows[-1]["val_loss"] == pytest.approx(np.log(vocabulary))
    assert rows[-1]["val_bits_per_byte"] == pytest.approx(np.log2(vocabulary), rel=0.01)
    assert result.steps == 20 and result.evaluation.loss == rows[-1]["val_loss"]
    assert TrainSettings.load(out / "train.json") == settings
    assert read_config(out) == trainer.config
    assert all(np.array_equal(everything(out)[name], array) for name, array in trainer.backend.params.items())
    assert [path.name for path in sorted((out / "checkpoints").iterdir())] == ["step-00000010", "step-00000020"]
    assert (out / "loss.png").exists() and callback.is_over and len(callback.steps) == 20
    assert (out / "samples.md").read_text().count("\n## step") == 2 and not (out / "run.lock").exists()
    json.dumps(result.to_json(), allow_nan=False)


def test_equal_settings_give_equal_runs(settings, tmp_path, hand_clock):
    for name in "ab":
        run(settings, tmp_path / name, hand_clock)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


@pytest.mark.parametrize("kill_before", [1, 8, 11, 20])
def test_killed_and_resumed_ends_with_the_same_bits(settings, tmp_path, hand_clock, kill_before):
    settings = settings.replace(checkpoint_minutes=0.4 / 60)  # about every fifth step of 0.1 s: also between two lines
    run(settings, tmp_path / "whole", hand_clock)
    with pytest.raises(Killed):
        run(settings, tmp_path / "killed", hand_clock, kill_before=kill_before)
    trainer, _ = run(settings, tmp_path / "killed", hand_clock, resume=True)
    assert kill_before == 1 or 0 < trainer.resumed_at < kill_before
    whole, killed = everything(tmp_path / "whole"), everything(tmp_path / "killed")
    assert all(np.array_equal(whole[name], killed[name]) for name in whole)
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")


@pytest.mark.parametrize("place", ["gradient", "eval_loss_sum"])
def test_what_was_learned_is_kept_whatever_fails(settings, tmp_path, hand_clock, place):
    run(settings, tmp_path / "whole", hand_clock)
    trainer = FakeTrainer(settings, tmp_path / "run", clock=hand_clock)
    method = getattr(trainer.backend, place)

    def fails(*arguments):
        if trainer.state.step >= 8:
            raise OSError(5, "Input/output error")
        return method(*arguments)

    setattr(trainer.backend, place, fails)
    with pytest.raises(OSError, match="Input/output"):
        trainer.fit()
    resumed, _ = run(settings, tmp_path / "run", hand_clock, resume=True)
    assert resumed.resumed_at == {"gradient": 8, "eval_loss_sum": 10}[place]
    whole, kept = everything(tmp_path / "whole"), everything(tmp_path / "run")
    assert all(np.array_equal(whole[name], kept[name]) for name in whole)


@pytest.mark.parametrize("moment", ["put", "draw", "save"])
def test_killed_at_the_very_end_it_is_finished_when_resumed(settings, tmp_path, hand_clock, monkeypatch, moment):
    run(settings, tmp_path / "whole", hand_clock)
    trainer = FakeTrainer(settings, tmp_path / "killed", clock=hand_clock)
    owner = {"put": trainer.model, "draw": RunRecorder, "save": trainer.checkpoints}[moment]
    method = getattr(owner, moment)

    def killed_at_the_end(*arguments):
        if trainer.state.step == 20 and (moment != "put" or arguments[0] == tmp_path / "killed"):
            raise Killed
        method(*arguments)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(owner, moment, killed_at_the_end)
        trainer.fit()
    run(settings, tmp_path / "killed", hand_clock, resume=True)
    whole, killed = everything(tmp_path / "whole"), everything(tmp_path / "killed")
    assert all(np.array_equal(whole[name], killed[name]) for name in whole)
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed") and (tmp_path / "killed/loss.png").exists()


def test_a_finished_run_goes_on_only_when_it_may_be_longer(settings, tmp_path, hand_clock):
    run(settings, tmp_path / "run", hand_clock)
    with pytest.raises(UserError, match="has ended: 20 steps"):
        run(settings, tmp_path / "run", hand_clock, resume=True)
    trainer, _ = run(settings.replace(max_steps=30), tmp_path / "run", hand_clock, resume=True)
    assert trainer.resumed_at == 20 and trainer.state.step == 30
    assert [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")] == [1, 5, 10, 15, 20, 25, 30]


def test_a_run_is_not_written_over_nor_turned_into_another(settings, tmp_path, hand_clock, text_file):
    run(settings, tmp_path / "run", hand_clock)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="already holds a run"):
        FakeTrainer(settings, tmp_path / "run")
    with pytest.raises(UserError, match="started with seed = 0"):
        FakeTrainer(settings.replace(seed=1), tmp_path / "run", resume=True)
    with pytest.raises(UserError, match="no run to resume"):
        FakeTrainer(settings, tmp_path / "empty", resume=True)
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_changed_data_is_noticed(settings, tmp_path, hand_clock, text_file):
    copy = tmp_path / "copy.txt"
    copy.write_text(text_file.read_text())
    settings = settings.replace(data=str(copy))
    run(settings, tmp_path / "run", hand_clock)
    copy.write_text(text_file.read_text().replace("cat", "cow"))
    with pytest.raises(UserError, match="has changed since"):
        FakeTrainer(settings.replace(max_steps=30), tmp_path / "run", resume=True)


def test_a_damaged_checkpoint_is_said_aloud_and_the_one_before_taken(settings, tmp_path, hand_clock):
    run(settings, tmp_path / "whole", hand_clock)
    with pytest.raises(Killed):
        run(settings.replace(evaluations=10), tmp_path / "run", hand_clock, kill_before=9)
    newest, before = tmp_path / "run/checkpoints/step-00000008", tmp_path / "run/checkpoints/step-00000006"
    (newest / "state.json").write_text("{")
    callback = Recorder()
    longer = settings.replace(evaluations=2)
    trainer, _ = run(longer, tmp_path / "run", hand_clock, resume=True, progress=callback)
    assert trainer.resumed_at == 6 and "step-00000008 is damaged" in callback.notices[0]
    whole, mended = everything(tmp_path / "whole"), everything(tmp_path / "run")
    assert all(np.array_equal(whole[name], mended[name]) for name in whole)
    for path in (tmp_path / "run/checkpoints").iterdir():
        (path / "state.json").write_text("{")
    with pytest.raises(FormatError):
        FakeTrainer(settings.replace(max_steps=30), tmp_path / "run", resume=True)
    assert before.name == "step-00000006"


def test_ctrl_c_keeps_everything(settings, tmp_path, hand_clock):
    class Presser(Callback):
        def stepped(self, facts):
            if facts.step == 7:
                os.kill(os.getpid(), signal.SIGINT)

    run(settings, tmp_path / "whole", hand_clock)
    trainer = FakeTrainer(settings, tmp_path / "run", progress=Presser(), clock=hand_clock)
    with pytest.raises(TrainingInterrupted, match="after 8 steps") as stopped:
        trainer.fit()
    assert stopped.value.exit_code == 130 and "--resume" in stopped.value.hint
    assert everything(tmp_path / "run"), "the folder is a model already"
    assert read_metrics(tmp_path / "run/metrics.jsonl")[-1]["step"] == 8
    run(settings, tmp_path / "run", hand_clock, resume=True)
    whole, resumed = everything(tmp_path / "whole"), everything(tmp_path / "run")
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)


def test_whoever_sends_a_signal_may_kill_while_the_picture_is_drawn(settings, tmp_path, hand_clock, monkeypatch):
    """It takes seconds where the machine is busy; all else is on disk by then."""
    kept = []

    def draw(self, notice):
        kept.append(sorted(path.name for path in self.folder.checkpoints.iterdir()))

    monkeypatch.setattr(RunRecorder, "draw", draw)
    monkeypatch.setattr(RunRecorder, "picture_is_due", lambda self: False)
    trainer = FakeTrainer(settings, tmp_path / "run", clock=hand_clock)
    update = trainer.backend.update

    def interrupted(lr):
        trainer.interrupt.signal = signal.SIGTERM if trainer.state.step == 4 else None
        update(lr)

    monkeypatch.setattr(trainer.backend, "update", interrupted)
    with pytest.raises(TrainingInterrupted, match="after 5 steps"):
        trainer.fit()
    assert len(kept) == 1 and kept[0][-1] == "step-00000005"


def test_a_loss_that_is_no_number_stops_the_run(settings, tmp_path, hand_clock):
    trainer = FakeTrainer(settings, tmp_path / "run", clock=hand_clock)
    good, bad = trainer.backend.gradient, StepResult(1.0, float("inf"))
    trainer.backend.gradient = lambda batches: good(batches) if trainer.state.step < 12 else bad
    with pytest.raises(TrainingDiverged, match="NaN or infinite at step 13") as error:
        trainer.fit()
    assert "step-00000010" in error.value.message and "--lr" in error.value.hint
    assert read_metrics(tmp_path / "run/metrics.jsonl")[-1]["step"] == 10


def test_a_flipped_bit_costs_one_checkpoint_and_not_the_run(settings, tmp_path, hand_clock):
    settings = settings.replace(checkpoint_minutes=0.4 / 60)
    run(settings, tmp_path / "whole", hand_clock)
    with pytest.raises(Killed):
        run(settings, tmp_path / "killed", hand_clock, kill_before=18)
    before, newest = sorted((tmp_path / "killed/checkpoints").glob("step-*"))[-2:]
    content = bytearray((newest / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (newest / "model.safetensors").write_bytes(content)
    trainer, _ = run(settings, tmp_path / "killed", hand_clock, resume=True)
    assert trainer.resumed_at == int(before.name.removeprefix("step-"))
    whole, killed = everything(tmp_path / "whole"), everything(tmp_path / "killed")
    assert all(np.array_equal(whole[name], killed[name]) for name in whole)
