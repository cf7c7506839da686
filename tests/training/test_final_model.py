"""A run whose validation loss rises again ends with the model of its best checkpoint, killed or not, and says so."""

import json
import math

import numpy as np
import pytest

from helpers.training import FakeBackend, FakeTrainer
from nano_llama.cli.common import Screen
from nano_llama.cli.info import show_run
from nano_llama.cli.train import summary
from nano_llama.formats import open_weights
from nano_llama.training.callback import Callback
from nano_llama.training.metrics import read_metrics
from nano_llama.training.run_summary import summarize
from nano_llama.training.state import RunState

OVERFITS = (3.0, 1.5, 2.0, 2.5)  # of four evaluations, after steps 5, 10, 15 and 20


class Scripted(FakeBackend):
    """Its validation losses, in nats per token, are those of `losses`, one every five updates."""

    losses = OVERFITS

    def eval_loss_sum(self, tokens, targets):
        self._pass(self.evaluating)
        return float(np.count_nonzero(targets != -100)) * self.losses[self.updates // 5 - 1]


class Notices(Callback):
    def __init__(self):
        self.texts = []

    def notice(self, text):
        self.texts.append(text)


def run(settings, out, clock, losses=OVERFITS, before=lambda trainer: None, **options):
    """-> the trainer, its result, and the notices that the user saw."""
    notices = Notices()
    trainer = FakeTrainer(
        settings.replace(evaluations=4), out, engine=Scripted, changes={"losses": losses}, clock=clock,
        progress=notices, **options,
    )  # fmt: skip
    before(trainer)
    return trainer, trainer.fit(), " ".join(notices.texts)


def weights(folder):
    with open_weights(folder) as found:
        return {name: np.array(array) for name, array in found.items()}


def equal(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_the_model_is_that_of_the_lowest_loss(settings, tmp_path, hand_clock):
    settings, out = settings.replace(keep_checkpoints=1), tmp_path / "run"
    trainer, result, said = run(settings, out, hand_clock)
    assert [path.name for path in sorted((out / "checkpoints").iterdir())] == ["step-00000010", "step-00000020"]
    assert equal(weights(out), weights(out / "checkpoints/step-00000010"))
    assert not equal(weights(out), weights(out / "checkpoints/step-00000020"))
    assert equal(weights(out), trainer.backend.weights()), "the trainer holds the run's model"
    assert not list(out.glob(".*"))
    assert "lowest at step 10 (1.5000), and is 2.5000 at step 20: the run's model is that of step 10" in said
    rows = read_metrics(out / "metrics.jsonl")
    assert [row.get("model_step") for row in rows] == [None] * (len(rows) - 1) + [10]
    found = result.to_json()
    assert (found["val_loss"], found["last_val_loss"], found["model_step"], found["steps"]) == (1.5, 2.5, 10, 20)
    best = next(row for row in rows if row["step"] == 10)
    assert found["val_bits_per_byte"] == pytest.approx(best["val_bits_per_byte"])
    table, _ = summarize(out)
    assert (table.best_step, table.model_step, table.val_loss) == (10, 10, 1.5)
    assert show_run(out)[0]["progress"]["last"]["model_step"] == 10
    shown = Screen(None)
    with shown.err.capture() as captured:
        shown.err.print(summary(result))
    assert "of step 10, where the validation loss was lowest" in captured.get()


@pytest.mark.parametrize(
    ("losses", "step"),
    [
        ((3.0, 2.0, 1.5, 1.0), None),  # it never rose
        ((1.0, 2.0, 1.5, 1.0), None),  # it came back to the lowest
        ((3.0, 1.0, 1.0, 2.0), 10),  # the first of equal ones
        ((3.0, 1.0, 2.0, math.nan), 10),
        ((math.nan, math.nan, 2.0, 3.0), 15),
        ((math.nan,) * 4, None),
        ((math.inf, 2.0, 1.0, math.inf), 15),
    ],
)
def test_ties_and_losses_that_are_no_numbers(settings, tmp_path, hand_clock, losses, step):
    out = tmp_path / "run"
    _, result, said = run(settings, out, hand_clock, losses)
    assert result.model_step == (step or 20) and ("run's model" in said) == (step is not None)
    assert equal(weights(out), weights(out / f"checkpoints/step-{step or 20:08d}"))
    json.dumps(result.to_json(), allow_nan=False)


@pytest.mark.parametrize("kill_after", [7, 10, 13, 19])
def test_killed_and_resumed_it_is_the_same_model(settings, tmp_path, hand_clock, kill_after):
    class Killed(BaseException):
        pass

    def kills(trainer):
        update = trainer.backend.update

        def killed(lr):
            if trainer.state.step == kill_after:
                raise Killed
            update(lr)

        trainer.backend.update = killed

    run(settings, tmp_path / "whole", hand_clock)
    with pytest.raises(Killed):
        run(settings, tmp_path / "killed", hand_clock, before=kills)
    trainer, result, _ = run(settings, tmp_path / "killed", hand_clock, resume=True)
    assert trainer.resumed_at == kill_after // 5 * 5, "from the last checkpoint, not from the best"
    assert result.model_step == 10 and equal(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


def test_a_longer_run_goes_on_from_the_last_step(settings, tmp_path, hand_clock):
    out, losses = tmp_path / "run", (3.0, 1.5, 2.0, 2.5, 2.5, 1.2)
    run(settings, out, hand_clock, losses)
    longer = settings.replace(max_steps=30, evaluations=6)
    trainer, result, said = run(longer, out, hand_clock, losses, resume=True)
    assert trainer.resumed_at == 20 and result.model_step == 30 and "run's model" not in said
    assert equal(weights(out), trainer.backend.weights()) and trainer.backend.updates == 30


def test_an_evaluation_of_a_part_does_not_count(settings, tmp_path, hand_clock):
    def partial(at):
        def change(trainer):
            evaluate = trainer.validator.evaluate

            def only_the_head(step, *rest):
                found = evaluate(step, *rest)
                return found and (type(found)(**{**vars(found), "partial": True}) if step == at else found)

            trainer.validator.evaluate = only_the_head

        return change

    _, result, _ = run(settings, tmp_path / "low", hand_clock, (3.0, 0.1, 2.0, 1.5), partial(10))
    assert result.model_step == 20, "the head's loss is not the lowest"
    _, result, _ = run(settings, tmp_path / "high", hand_clock, (3.0, 2.0, 1.0, 9.0), partial(20))
    assert result.model_step == 20, "nor is it worse than that of the whole"
    _, result, said = run(settings, tmp_path / "past", hand_clock, (3.0, 1.0, 2.0, 0.1), partial(20))
    assert result.model_step == 10 and "lowest at step 10 (1.0000): the run's model" in said
    assert result.to_json()["val_loss"] == 1.0


def test_a_best_checkpoint_that_is_damaged_is_said_and_the_last_step_taken(settings, tmp_path, hand_clock):
    out = tmp_path / "run"

    def damage(trainer):
        update = trainer.backend.update

        def damaging(lr):
            if trainer.state.step == 17:
                trainer.checkpoints.wait()
                path = out / "checkpoints/step-00000010/model.safetensors"
                path.write_bytes(path.read_bytes()[:-1] + b"!")
            update(lr)

        trainer.backend.update = damaging

    _, result, said = run(settings, out, hand_clock, before=damage)
    assert "best checkpoint cannot be read" in said and "model.safetensors" in said
    assert result.model_step == 20 and result.evaluation.loss == 2.5
    assert equal(weights(out), weights(out / "checkpoints/step-00000020"))


def test_stopped_after_the_loss_rose_it_is_the_best_too(settings, tmp_path, hand_clock):
    out = tmp_path / "run"

    def stops(trainer):
        update = trainer.backend.update

        def stopping(lr):
            update(lr)
            if trainer.backend.updates == 17:
                trainer.interrupt.signal = 15

        trainer.backend.update = stopping

    with pytest.raises(Exception, match="after 17 steps"):
        run(settings, out, hand_clock, before=stops)
    assert equal(weights(out), weights(out / "checkpoints/step-00000010"))
    assert read_metrics(out / "metrics.jsonl")[-1]["model_step"] == 10


def test_a_state_saved_by_an_earlier_version_is_read():
    saved = RunState(step=3).to_json()
    del saved["best"], saved["past_best"]
    assert RunState.from_json(saved) == RunState(step=3)
