"""What every engine's training shares: settings, schedule, budget, metrics, checkpoints, the run's folder and the loop.

A volume brings only a model and its update (`TrainingLoop` in loop.py says which methods), so that two engines train
with the same flags, on the same batches, into the same files.

    settings.py    every setting of a run, its range and its reason
    presets.py     named recipes; how flags, files and presets come together
    schedule.py    the learning rate over the run
    budget.py      how far the run is, by steps or by the clock
    pace.py        how fast it goes, and when the validation loss is due
    evaluation.py  what a validation loss means
    start.py       the data, and a model that is fresh or goes on
    run_folder.py  where the files of a run lie
    checkpoint.py  all that is needed to go on
    checkpoint_writer.py  written while the training goes on
    metrics.py     metrics.jsonl
    preflight.py   what a run will need, or why it cannot be
    flops.py       the arithmetic of a token
    plots.py       loss.png, and the picture of several runs
    samples.py     samples.md: what the model writes along the way
    tensorboard.py the same figures for TensorBoard
    reports.py     these files together
    run_summary.py a run at a glance
    progress.py    who watches
    progress_bar.py    the live display
    interrupt.py   Ctrl-C
    timekeeper.py  the minutes that belong to the run's end
    watchdog.py    losses that go wrong, and the batches they came from
    outcome.py     how a run can end
    loop.py        the loop itself

Not here: tensors of any engine; this package imports neither torch nor numba. Tests: tests/training/.
"""

from nano_llama.training.evaluation import Evaluation
from nano_llama.training.loop import TrainingLoop
from nano_llama.training.outcome import TrainingResult
from nano_llama.training.presets import TRAINING_PRESETS, make_settings
from nano_llama.training.progress import Progress
from nano_llama.training.settings import TrainSettings

__all__ = [
    "TRAINING_PRESETS",
    "Evaluation",
    "Progress",
    "TrainSettings",
    "TrainingLoop",
    "TrainingResult",
    "make_settings",
]
