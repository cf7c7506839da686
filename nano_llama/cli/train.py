"""`nano-llama train`: settings from flags, presets and files, then a Trainer of Volume 2 or Volume 1.

Not here: the loop (training/loop.py), what a setting means (training/settings.py) and its flag
(train_options.py). Tests: tests/cli/test_train.py.
"""

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from nano_llama.cli.common import Output, Screen, facts, path_with_a_name, table
from nano_llama.cli.engines import has_torch
from nano_llama.cli.train_options import REST, TrainOptions, given
from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.core.units import time_text
from nano_llama.training.callback import Callback
from nano_llama.training.clock import process_start
from nano_llama.training.loop import TrainingLoop
from nano_llama.training.outcome import TrainingResult
from nano_llama.training.presets import EXPECTED, TRAINING_PRESETS, explicit, make_settings, training_preset
from nano_llama.training.run_folder import RunFolder
from nano_llama.training.settings import TrainSettings, merge, read_settings

RUN = Group("Run", sort_key=1)
MORE_OPTIONS = REST  # of dispatch.py


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
    """Train a LLaMA on your text: it is tokenized once, then learned; the loss falls on screen and into a picture.

    In a hurry:  nano-llama train --data my.txt --out runs/mine --max-minutes 5

    Recipes, with their time and loss:  nano-llama train --presets

    Here are the settings that most runs need. All COUNT:  nano-llama train --help-all

    Parameters
    ----------
    out
        The run's folder: settings, metrics.jsonl, loss.png, checkpoints, and at the end the model. It must be new.
    preset
        A named recipe to start from: PRESETS. Flags win over it.
    config
        A train.json: runs it again. Flags win over it, it wins over the preset.
    overrides
        KEY=VALUE, any setting by its name in train.json.
    resume
        Go on with the run in --out from its newest checkpoint, to the very position in the data. One that has ended
        goes on with more steps or minutes.
    """
    screen = Screen(output)
    flags: dict[str, Any] = given(options) if options is not None else {}
    for name in (name for name, value in flags.items() if value == ""):  # as a path it would be the current folder
        raise UserError(f"--{name.replace('_', '-')} is empty.", hint="Give it a value, or leave it out.")
    if resume:
        changes = [training_preset(preset) if preset else {}, read_settings(config) if config else {}]
        settings = RunFolder(out).resumed_settings(merge([*changes, explicit(flags, overrides)]))
    else:
        settings = make_settings(preset=preset, config=config, flags=flags, overrides=overrides)
    trainer = make_trainer(settings, out, resume=resume, progress=watcher(screen), start=process_start())
    result = trainer.fit()
    screen.result(result.to_json(), summary(result))
    screen.say(
        f'\nTry it:  nano-llama generate --model {shlex.quote(str(out))} --prompt "..."', "dim", whole_lines=True
    )
    return 0


assert run.__doc__ is not None
run.__doc__ = run.__doc__.replace("PRESETS", ", ".join(TRAINING_PRESETS)).replace(
    "COUNT", str(len(fields(TrainSettings)))
)


def list_presets(*, output: Output | None = None) -> int:
    """The recipes of --preset: what each takes and gives, and how it differs from the defaults."""
    screen = Screen(output)
    rows = [(name, *EXPECTED[name]) for name in TRAINING_PRESETS]
    changes = {name: ", ".join(f"{k} {v}" for k, v in values.items()) for name, values in TRAINING_PRESETS.items()}
    listed = {
        name: {"settings": values, "expected_time": EXPECTED[name].time, "expected_loss": EXPECTED[name].loss}
        for name, values in TRAINING_PRESETS.items()
    }
    expectations = table(("preset", "time", "validation loss, nats a token"), rows)
    screen.result({"presets": listed}, expectations, "", facts(changes, "Their settings; all others as by default"))
    screen.say("\nStart one:  nano-llama train --preset NAME --out runs/NAME      (flags win over it)", "dim")
    return 0


FLAG_ACTIONS = {"--presets": list_presets}  # of dispatch.py


def make_trainer(settings: TrainSettings, out: Path, **more: Any) -> TrainingLoop:
    """The Trainer of the engine that the settings name. Raises EnvironmentFault where torch is meant and missing."""
    if settings.engine == "numpy":
        from nano_llama.vol1_numpy.trainer import Trainer as NumpyTrainer

        return NumpyTrainer(settings, out, **more)
    if not has_torch():
        raise EnvironmentFault(
            "Training with Volume 2 needs the package 'torch', which is not installed.",
            hint='Install it with  pip install "nano-llama-engine[train]"  or train by Volume 1:  --engine numpy',
        )
    from nano_llama.vol2_torch.trainer import Trainer

    return Trainer(settings, out, **more)


def watcher(screen: Screen) -> Callback:
    """The live display, or silence with --quiet."""
    if screen.quiet:
        return Callback()
    from nano_llama.training.progress_bar import ProgressBar

    return ProgressBar(screen.err)


def summary(result: TrainingResult) -> Any:
    """How a run ended, for the eye."""
    judged = result.evaluation
    return facts(
        {
            "steps": result.steps,
            "tokens seen": result.tokens,
            "training loss": f"{result.train_loss:.4f} nats a token",
            "validation loss": f"{judged.loss:.4f} nats a token" if judged else None,
            "bits per byte": f"{judged.bits_per_byte:.4f}" if judged else None,
            "speed": f"{result.tokens_per_second:,.0f} tokens a second",
            "took": time_text(result.elapsed_s),
            "run": result.out,
            "loss curve": result.out / "loss.png",
        }
    )
