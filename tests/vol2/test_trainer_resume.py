"""A run that is stopped between any two steps and resumed ends with the bits of an undisturbed one."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helpers.training import stop_before  # noqa: E402
from nano_llama.formats import open_weights  # noqa: E402
from nano_llama.training.metrics import read_metrics  # noqa: E402
from nano_llama.vol2_torch.trainer import Trainer  # noqa: E402


def weights(folder):
    with open_weights(folder) as saved:
        return {name: np.array(saved[name]).tobytes() for name in saved}


def losses(folder):
    return [(row["step"], row["train_loss"], row.get("val_loss")) for row in read_metrics(folder / "metrics.jsonl")]


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

    for stop in (2, 5, 11):
        stop_before(Trainer(settings, tmp_path / f"run{stop}"), stop)
        torch.manual_seed(99)  # whatever happened in between
        Trainer(settings, tmp_path / f"run{stop}", resume=True).fit()
        assert weights(tmp_path / f"run{stop}") == expected, stop
        assert losses(tmp_path / f"run{stop}") == curve


def test_a_step_that_fails_midway_is_repeated(recipe, tmp_path):
    """Memory runs out after dropout has drawn: the step before is kept, generators included."""
    settings = recipe.replace(dropout=0.2, accumulate=2, ema=0.9)
    Trainer(settings, tmp_path / "whole").fit()
    trainer = Trainer(settings, tmp_path / "run")
    nats, batches = trainer.backend.strategy.loss_sum, []

    def short_of_memory(*arrays, **options):
        batches.append(1)
        loss = nats(*arrays, **options)
        if len(batches) == 2 * 5 + 2:  # the second batch of the sixth step
            raise MemoryError
        return loss

    trainer.backend.strategy.loss_sum = short_of_memory
    with pytest.raises(MemoryError):
        trainer.fit()
    resumed = Trainer(settings, tmp_path / "run", resume=True)
    assert resumed.resumed_at == 5
    resumed.fit()
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
