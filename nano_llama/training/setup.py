"""Setting up a run: settings checked, data prepared, a backend created, and the parts of the loop put together.

Each volume's `Trainer` is this with its own engine. Tests: tests/training/test_start.py, test_loop.py.
"""

import time
from pathlib import Path

from nano_llama.training.backend import Engine
from nano_llama.training.budget import Clock
from nano_llama.training.callback import Callback
from nano_llama.training.checkpoint_writer import CheckpointWriter
from nano_llama.training.checkpoints import NEEDED, Checkpoints, Writer
from nano_llama.training.clock import RunClock
from nano_llama.training.loop import TrainingLoop
from nano_llama.training.preflight import checkpoint_bytes
from nano_llama.training.ranks import OneProcess, Ranks, WrittenByFirst
from nano_llama.training.run_folder import RunFolder
from nano_llama.training.samples import check_sample_prompt
from nano_llama.training.settings import TrainSettings
from nano_llama.training.start import (
    TrainingData,
    model_files,
    newest_checkpoint,
    past_progress,
    prepare_dataset,
    starting_point,
)
from nano_llama.training.state import RunState
from nano_llama.training.tensorboard import check_tensorboard
from nano_llama.training.validator import ANSWERING


def set_up_run(
    engine: Engine,
    settings: TrainSettings,
    out: str | Path,
    *,
    resume: bool = False,
    dataset: TrainingData | None = None,
    progress: Callback | None = None,
    start: float | None = None,
    clock: Clock = time.monotonic,
    ranks: Ranks | None = None,
) -> TrainingLoop:
    """A run that is ready to `fit`.

    out: the run's folder; it must be new, or with `resume` hold a run that these settings may continue. dataset: what
    to learn from; by default `settings.data` is prepared. progress: is told what happens. start: when the process
    began, on `clock`'s scale; `max_minutes` and `elapsed_s` count from there (default: now). ranks: the processes that
    train together, of which this is one.
    Raises UserError, before anything is written, if the settings cannot be honoured.
    """
    start, callback, ranks = clock() if start is None else start, progress or Callback(), ranks or OneProcess()
    folder, before = RunFolder(out, settings.command), settings
    if ranks.rank == 0:  # several at once would take each other for a run
        folder.check_free()
    if resume:
        before = folder.load_settings()
        settings = folder.resumed_settings(settings.to_json())
    else:
        folder.check_new()
    engine.check_settings(settings)
    if settings.tensorboard:
        check_tensorboard()
    dataset = dataset or prepare_dataset(settings, folder.path if resume else None, callback)
    check_sample_prompt(settings, dataset.tokenizer)
    checkpoint = newest_checkpoint(folder.checkpoints, NEEDED, settings, callback.notice, ranks) if resume else None
    start_from = starting_point(settings, dataset, checkpoint)
    batches = dataset.training_batches(settings.batch_size, settings.context, settings.seed, settings.document_mask)
    if settings.epochs is not None:
        settings = settings.replace(max_steps=batches.steps(settings.epochs, settings.accumulate))
    backend = engine.create(
        settings, start_from.config, start_from.weights, callback.notice, adapter=start_from.adapter
    )

    state, past, past_seconds = RunState(), 0.0, 0.0
    if checkpoint:
        state = RunState.from_json(checkpoint.state)
        past, past_seconds = past_progress(settings, before, checkpoint.state), checkpoint.state["elapsed_s"]
        batches.seek(state.data_position)
        backend.restore(checkpoint.tensors)
    model = model_files(settings, start_from, dataset.tokenizer)
    writer: Writer = CheckpointWriter(folder, model, settings.keep_checkpoints)
    if ranks.rank != 0:
        model, writer = WrittenByFirst(model), WrittenByFirst()
    evaluated = dataset.val.num_tokens * (1.0 if backend.answer is None else 1.0 + ANSWERING)
    run_clock = RunClock(
        settings, writer, checkpoint_bytes=checkpoint_bytes(start_from.config, settings),
        val_tokens=int(evaluated) if settings.evaluations else 0, start=start, past_progress=past,
        past_seconds=past_seconds, clock=clock, ranks=ranks,
    )  # fmt: skip
    checkpoints = Checkpoints(writer, backend, state, run_clock, dataset.fingerprint)
    return TrainingLoop(
        settings, dataset, batches, backend, folder, model, callback=callback, clock=run_clock,
        checkpoints=checkpoints, state=state, resumed_at=state.step if resume else None,
    )  # fmt: skip
