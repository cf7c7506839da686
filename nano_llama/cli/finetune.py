"""`nano-llama finetune`: a model learns from examples; what it will learn is shown first, what has changed afterwards.

The flags are in finetune_options.py, their meaning in training/finetune/settings.py, what is shown of the data in
examples_shown.py, the report in training/finetune/report.py. Tests: tests/cli/test_finetune.py.
"""

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from nano_llama.cli.common import Output, Screen, path_with_a_name, table
from nano_llama.cli.examples_shown import examples_json, show_examples, summaries
from nano_llama.cli.finetune_options import FLAGS, LEFT_OUT, REST, FinetuneOptions
from nano_llama.cli.setting_options import given
from nano_llama.cli.train import NO_MESH, check_alone, live_display, summary, trainer_for
from nano_llama.core.env import launch
from nano_llama.data.sft.dataset import ExampleDataset
from nano_llama.training.callback import Callback
from nano_llama.training.finetune.examination import Examination, KeepBefore
from nano_llama.training.finetune.held_out import check_held_out
from nano_llama.training.finetune.report import changes_table, forgetting, next_commands
from nano_llama.training.finetune.run import FinetuneResult, fit_with_report
from nano_llama.training.finetune.settings import FinetuneSettings
from nano_llama.training.run_folder import RunFolder
from nano_llama.training.settings import merge
from nano_llama.training.settings_layers import layers
from nano_llama.training.start import prepare_dataset

RUN = Group("Run", sort_key=1)
MORE_OPTIONS = REST  # of dispatch.py
EXAMPLE = "--model smollm2-135m --data chats.jsonl --out runs/mine"  # of dispatch.py
_INSTEAD = ("--config", "--set", "--resume")
NEEDS = {"--model": _INSTEAD, "--data": _INSTEAD}


def run(
    *,
    out: Annotated[Path, Parameter(group=RUN, converter=path_with_a_name)],
    config: Annotated[Path | None, Parameter(group=RUN)] = None,
    overrides: Annotated[tuple[str, ...], Parameter(name="--set", group=RUN)] = (),
    resume: Annotated[bool, Parameter(group=RUN)] = False,
    options: FinetuneOptions | None = None,  # type: ignore[valid-type]
    output: Output | None = None,
) -> int:
    """Fine-tune a model on examples: questions with answers, conversations, or texts.

    For example:  nano-llama finetune --model SmolLM2.gguf --data chats.jsonl --out runs/mine

    A line of it:  {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Ahoy!"}]}

    Only to look at the data, as the model would read it:  nano-llama finetune --model ... --data ... --check-data

    These are the settings that most runs need. All COUNT:  nano-llama finetune --help-all

    Parameters
    ----------
    out
        Folder of the run: the adapter or the model, report.md, settings, metrics, checkpoints. It must be new.
    config
        Run a train.json again. Flags override it.
    overrides
        KEY=VALUE: any setting, by its name in train.json.
    resume
        Resume the run in --out from its newest checkpoint, at its exact position in the data. A run that has ended
        goes on if it is given more epochs, steps or minutes.
    """
    started = launch()
    screen = Screen(output if started is None or started.rank == 0 else Output(quiet=True))
    settings_given = finetune_settings(config, overrides, options)
    folder = RunFolder(out, FinetuneSettings.command)
    if resume:
        settings = folder.resumed_settings(NO_MESH | settings_given)  # as this command is started
    else:
        settings = FinetuneSettings(**settings_given)
        if started is None:  # else trainer_for knows whether it was begun by the same torchrun
            folder.check_new()
    assert isinstance(settings, FinetuneSettings), "resumed_settings keeps the kind"
    if started is None:
        check_alone(settings)
    check_held_out(settings.held_out)
    keep = KeepBefore()
    dataset = read_examples(settings, out if resume else None, live_display(screen))
    found = summaries(settings, dataset)
    with trainer_for(settings, out, screen, resume=resume, dataset=dataset, also=keep) as loop:
        show_examples(screen, settings, dataset, found)  # once the run can begin: what prevents that is said alone
        if loop.state.step == 0:  # else it has answered them
            screen.say(
                "\nFirst the model answers validation prompts as it is, for comparison; that takes a minute at most."
            )
        done = fit_with_report(loop, keep, lambda before: say_before(screen, before))
        if loop.ranks.rank != 0:
            return 0
    screen.result(
        result_json(examples_json(dataset, found), done),
        summary(done.result),
        "",
        table(("", "before", "after"), changes_table(settings, done.before, done.after)),
        forgetting(done.before, done.after),
    )
    screen.say(f"\nWhat has changed, with answers before and after:  {done.report}", whole_lines=True)
    screen.say("Next:", "dim")
    assert isinstance(loop.settings, FinetuneSettings), "the loop counts the steps, and keeps the kind"
    for line in next_commands(loop.settings, out, bool(dataset.tokenizer.chat_templates)):
        screen.say(f"  {line}", "dim", whole_lines=True)
    return 0


assert run.__doc__ is not None
run.__doc__ = run.__doc__.replace("COUNT", str(len(fields(FinetuneSettings)) - len(LEFT_OUT)))


def check_data(
    *,
    out: Annotated[Path | None, Parameter(show=False)] = None,
    config: Annotated[Path | None, Parameter(group=RUN)] = None,
    overrides: Annotated[tuple[str, ...], Parameter(name="--set", group=RUN)] = (),
    options: FinetuneOptions | None = None,  # type: ignore[valid-type]
    output: Output | None = None,
) -> int:
    """What is in the data, as the model would read it, and which tokens it would learn. Nothing is trained."""
    screen = Screen(output)
    settings = FinetuneSettings(**finetune_settings(config, overrides, options))
    dataset = read_examples(settings, None, live_display(screen))
    show_examples(screen, settings, dataset, summaries(settings, dataset), result=True)
    screen.say("\nTrain on them:  the same command without --check-data, with --out", "dim")
    return 0


FLAG_ACTIONS = {"--check-data": check_data}  # of dispatch.py


def finetune_settings(config: Path | None, overrides: tuple[str, ...], options: Any) -> dict[str, Any]:
    """The settings that are given, by name."""
    return merge(layers(None, config, given(options, FLAGS), overrides, FinetuneSettings))


def read_examples(settings: FinetuneSettings, run: Path | None, display: Callback) -> ExampleDataset:
    """run: the folder of a run that is resumed, with its own tokenizer."""
    dataset = prepare_dataset(settings, run, display)
    assert isinstance(dataset, ExampleDataset), "fine-tuning learns from examples"
    return dataset


def say_before(screen: Screen, before: Examination) -> None:
    """A line on what the model could do."""
    loss = f"validation loss {before.validation.loss:.4f}, " if before.validation else ""
    right = f"{before.num_right} of {len(before.answers)} answers exactly right"
    screen.say(f"before: {loss}{right if before.answers else 'no time for answers'}")


def result_json(data: dict[str, Any], done: FinetuneResult) -> dict[str, Any]:
    return {
        **done.result.to_json(),
        "data": data,
        "before": done.before and done.before.to_json(),
        "after": done.after.to_json(),
        "report": done.report,
    }
