"""What every engine's training shares: settings, the loop and its parts, and the files of a run.

A volume brings only its arithmetic, a `Backend` (backend.py), so two engines train with the same settings, on the same
batches, into the same files. A run, from top to bottom:

    settings.py    every setting of a run, its range and its reason (setting_fields.py: how they check themselves)
    presets.py     named recipes; settings_layers.py: flags, files and presets merged
    setup.py       a run put together: start.py finds its data and weights, preflight.py what it needs
    loop.py        the loop, over these parts:
      backend.py       what an engine brings: gradient, update, evaluation, state
      clock.py         how far, what is due, is there time: budget.py, pace.py, end_reserve.py
      schedule.py      the learning rate
      watchdog.py      losses that go wrong; bad_batches.py: what is then done
      validator.py     the validation loss (evaluation.py) and samples
      checkpoints.py   when a checkpoint is taken; checkpoint.py: what it holds; checkpoint_writer.py writes it
      recorder.py      metrics.jsonl, samples.md, loss.png, TensorBoard's files: metrics.py, samples.py, plots.py ...
      callback.py      who is told; progress_bar.py: the live display
      ranks.py         the processes that train together: how they decide alike, and which of them writes
      state.py, record.py  where the run stands; the figures of one step
      interrupt.py, outcome.py  Ctrl-C; how a run can end
    model_files.py what is saved of the model; saved_settings.py: a train.json of either kind
    run_folder.py  where the files of a run lie; run_summary.py: a run at a glance

finetune/ has the settings of fine-tuning, whose data are examples (data/sft) and whose weights may be an adapter's.
This package imports neither torch nor numba. Tests: tests/training/.
"""

from nano_llama.training.callback import Callback
from nano_llama.training.evaluation import Evaluation
from nano_llama.training.loop import TrainingLoop
from nano_llama.training.outcome import TrainingResult
from nano_llama.training.presets import TRAINING_PRESETS
from nano_llama.training.settings import TrainSettings
from nano_llama.training.settings_layers import make_settings

__all__ = [
    "TRAINING_PRESETS",
    "Callback",
    "Evaluation",
    "TrainSettings",
    "TrainingLoop",
    "TrainingResult",
    "make_settings",
]
