"""`nano-llama train`: settings from flags, presets and files, then a Trainer of Volume 2 or Volume 1.

The flags are in train_options.py, their meaning in training/settings.py. Tests: tests/cli/test_train.py.
"""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from nano_llama.cli.common import Output, Screen, facts, path_with_a_name, table
from nano_llama.cli.engines import has_torch
from nano_llama.cli.train_options import REST, TrainOptions, given
from nano_llama.core.env import Launch, launch
from nano_llama.core.errors import EnvironmentFault, UserError, import_extra, install_command
from nano_llama.core.machine import process_age
from nano_llama.core.units import time_text
from nano_llama.training.callback import Callback, Callbacks
from nano_llama.training.clock import process_start
from nano_llama.training.loop import TrainingLoop
from nano_llama.training.outcome import TrainingResult
from nano_llama.training.presets import EXPECTED, TRAINING_PRESETS
from nano_llama.training.run_folder import RunFolder
from nano_llama.training.settings import TrainSettings, merge
from nano_llama.training.settings_layers import layers
from nano_llama.training.small_text import suited

RUN = Group("Run", sort_key=1)
FRESH_STORE = "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"  # docs/parallel.md says why
NO_MESH = {"mesh": TrainSettings.mesh, "mesh_timeout": TrainSettings.mesh_timeout}
MORE_OPTIONS = REST  # of dispatch.py
EXAMPLE = "--data stdlib --out runs/mine"  # of dispatch.py
NEEDS = {"--data": ("--preset", "--config", "--set", "--resume")}


def run(
    *,
    out: Annotated[Path, Parameter(group=RUN, converter=path_with_a_name)],
    preset: Annotated[str | None, Parameter(group=RUN)] = None,
    config: Annotated[Path | None, Parameter(group=RUN)] = None,
    overrides: Annotated[tuple[str, ...], Parameter(name="--set", group=RUN)] = (),
    resume: Annotated[bool, Parameter(group=RUN)] = False,
    options: TrainOptions | None = None,  # type: ignore[valid-type]
    output: Output | None = None,
) -> int:
    """Train a LLaMA on your text. The text is tokenized once; the loss is shown live and drawn into loss.png.

    In a hurry:  nano-llama train --data my.txt --out runs/mine --max-minutes 5
    (a text below 2 MB gets a tokenizer, model and batch that suit it, unless you give them)

    Presets, with their time and loss:  nano-llama train --presets

    These are the settings that most runs need. All COUNT:  nano-llama train --help-all

    Parameters
    ----------
    out
        Folder of the run: settings, metrics.jsonl, loss.png, checkpoints, and finally the model. It must be new.
    preset
        Named settings to start from: PRESETS. Flags override them.
    config
        Run a train.json again. Flags override it, and it overrides the preset.
    overrides
        KEY=VALUE: any setting, by its name in train.json.
    resume
        Resume the run in --out from its newest checkpoint, at its exact position in the data. A run that has ended
        goes on if it is given more steps or minutes.
    """
    screen = Screen(output)
    given_settings = merge(layers(preset, config, given(options), overrides))
    reason = ""
    if resume:
        settings = RunFolder(out).resumed_settings(NO_MESH | given_settings)  # as this command is started
    else:
        if not preset and not config:  # a recipe is taken as it is
            given_settings, reason = suited(given_settings)
        settings = TrainSettings(**given_settings)
    with trainer_for(settings, out, screen, resume=resume) as trainer:
        say_why_suited(reason, screen)  # once the run can begin: what prevents that is said alone
        result = trainer.fit()
        if trainer.ranks.rank != 0:
            return 0
    screen.result(result.to_json(), summary(result))
    what = '--image FILE --prompt "What colour is the shape?"' if settings.from_pictures else '--prompt "..."'
    screen.say(f"\nTry it:  nano-llama generate --model {shlex.quote(str(out))} {what}", "dim", whole_lines=True)
    return 0


assert run.__doc__ is not None
run.__doc__ = run.__doc__.replace("PRESETS", ", ".join(TRAINING_PRESETS)).replace(
    "COUNT", str(len(fields(TrainSettings)))
)


def say_why_suited(reason: str, screen: Screen) -> None:
    """What suits a small text, and why: of several processes, which all choose the same, the first says it."""
    if reason and ((started := launch()) is None or started.rank == 0):
        screen.say(reason, "dim", whole_lines=True)


def list_presets(*, output: Output | None = None) -> int:
    """The presets: the time and loss to expect of each, and how it differs from the defaults."""
    screen = Screen(output)
    rows = [(name, *EXPECTED[name]) for name in TRAINING_PRESETS]
    changes = {name: ", ".join(f"{k} {v}" for k, v in values.items()) for name, values in TRAINING_PRESETS.items()}
    listed = {
        name: {"settings": values, "expected_time": EXPECTED[name].time, "expected_loss": EXPECTED[name].loss}
        for name, values in TRAINING_PRESETS.items()
    }
    expectations = table(("preset", "time", "validation loss, nats per token"), rows)
    screen.result(
        {"presets": listed}, expectations, "", facts(changes, "What each sets; everything else has its default")
    )
    screen.say("\nStart one:  nano-llama train --preset NAME --out runs/NAME      (flags override it)", "dim")
    return 0


FLAG_ACTIONS = {"--presets": list_presets}  # of dispatch.py


def check_engine(engine: str) -> None:
    """Raise EnvironmentFault if torch is needed and missing."""
    if engine == "torch" and not has_torch():
        raise EnvironmentFault(
            "Training with Volume 2 needs the package 'torch', which is not installed.",
            hint=f"Install it with  {install_command('train')}  or train with Volume 1:  --engine numpy",
        )


def make_trainer(settings: TrainSettings, out: Path, **more: Any) -> TrainingLoop:
    """The Trainer of the engine that the settings name. Raises EnvironmentFault if torch is needed and missing."""
    check_engine(settings.engine)
    if settings.engine == "numpy":
        from nano_llama.vol1_numpy.trainer import Trainer as NumpyTrainer

        return NumpyTrainer(settings, out, **more)
    from nano_llama.vol2_torch.trainer import Trainer

    return Trainer(settings, out, **more)


def check_alone(settings: TrainSettings) -> None:
    """Raise UserError where the settings are for several processes, of which there is one."""
    if settings.mesh:
        import_extra("torch", "train", "Training with many processes")
        from nano_llama.vol2_torch.parallel.config import ParallelConfig

        needed = ParallelConfig.parse(settings.mesh).world_size
        raise UserError(
            f"mesh = {settings.mesh!r}, but a single process was started.",
            hint=f"Start them all:  torchrun --nproc-per-node {needed} -m nano_llama {settings.command} ...",
        )
    if settings.mesh_timeout != NO_MESH["mesh_timeout"]:
        raise UserError(
            f"mesh_timeout = {settings.mesh_timeout:g}, but a single process was started, which waits for no other.",
            hint="Leave it out, or start several processes with torchrun.",
        )


@contextmanager
def trainer_for(
    settings: TrainSettings, out: Path, screen: Screen, *, resume: bool, also: Callback | None = None, **more: Any
) -> Iterator[TrainingLoop]:
    """The trainer of this process, alone or as torchrun has started it, with its live display.

    also: another callback. more: of `set_up_run`.

    Where torchrun starts processes again, since one has died or a machine has come, they resume what they had begun.
    """
    started = launch()
    if started is None:
        check_alone(settings)
        display = Callbacks(live_display(screen), also or Callback())
        yield make_trainer(settings, out, resume=resume, progress=display, start=process_start(), **more)
        return
    if settings.engine != "torch":
        raise UserError(
            f"engine = {settings.engine!r}: only Volume 2 trains with many processes.", hint="--engine torch"
        )
    begun_before = begun_by_this_launcher(out, started)
    if not resume and not begun_before and not started.restartable:
        RunFolder(out).check_new()  # where some may be restarted ones, they ask each other first
    import_extra("torch", "train", "Training with many processes")
    from nano_llama.training.setup import set_up_run
    from nano_llama.vol2_torch.parallel.trainer import joined

    with joined(settings, started) as run:
        resume = resume or any(run.ranks.gathered(begun_before))  # machines that have come know nothing of it
        display = Callbacks(live_display(screen), also or Callback()) if started.rank == 0 else Callbacks()
        display.notice(f"{settings.mesh or f'dp={started.world_size}'}: {run.network}")
        if started.restartable and not started.fresh_store:
            display.notice(f"Restarted processes may not find each other. Before torchrun:  {FRESH_STORE}")
        yield set_up_run(
            run.engine, settings, out, resume=resume, progress=display, start=process_start(), ranks=run.ranks, **more
        )


def begun_by_this_launcher(out: Path, started: Launch) -> bool:
    """Whether the run in `out` is younger than the torchrun that has started this process: then it is that one's."""
    age = process_age(os.getppid())
    if age is None:  # not Linux
        return started.restarts > 0 and RunFolder(out).settings.exists()
    return RunFolder(out).begun_within(age)


def live_display(screen: Screen) -> Callback:
    """The live display; with --quiet, none."""
    if screen.quiet:
        return Callback()
    from nano_llama.training.progress_bar import ProgressBar

    return ProgressBar(screen.err)


def summary(result: TrainingResult) -> Any:
    """How a run ended, as text."""
    validation = result.evaluation
    return facts(
        {
            "steps": result.steps,
            "tokens seen": result.tokens,
            "training loss": f"{result.train_loss:.4f} nats per token",
            "validation loss": f"{validation.loss:.4f} nats per token" if validation else None,
            "model": f"of step {result.model_step:,}, where the validation loss was lowest" if result.best else None,
            "bits per byte": f"{validation.bits_per_byte:.4f}" if validation else None,
            "validated on": f"the first {validation.tokens:,} tokens (time limit)"
            if validation and validation.partial
            else None,
            "speed": f"{result.tokens_per_second:,.0f} tokens/s",
            "took": time_text(result.elapsed_s),
            "run": result.out,
            "loss curve": result.out / "loss.png",
        }
    )
