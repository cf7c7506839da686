"""`nano-llama compare A B`: two settings trained on the same seeds, their error bars, one picture, and a verdict.

What the verdict means: training/comparison.py. Tests: tests/cli/test_compare.py.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from nano_llama.cli.common import Output, PictureFormat, Screen, facts, path_with_a_name, whole_number
from nano_llama.cli.train import check_alone, live_display, make_trainer
from nano_llama.cli.train_options import REST, TrainOptions, given
from nano_llama.core.env import launch
from nano_llama.core.errors import UserError
from nano_llama.core.units import plural, rough_time_text
from nano_llama.training.comparison import MOST_SEEDS, Comparison
from nano_llama.training.metrics import read_metrics
from nano_llama.training.outcome import TrainingInterrupted
from nano_llama.training.plots import plot_comparison
from nano_llama.training.presets import TRAINING_PRESETS
from nano_llama.training.run_folder import RunFolder
from nano_llama.training.run_summary import RunSummary, alike, summarize
from nano_llama.training.settings import LENGTHS, TrainSettings, merge
from nano_llama.training.settings_layers import explicit, layers
from nano_llama.training.small_text import suited

COMPARISON = Group("Comparison", sort_key=1)
MORE_OPTIONS = REST  # of dispatch.py
EXAMPLE = "lr=0.002 lr=0.006 --data shakespeare --max-steps 300"  # of dispatch.py
Seeds = Annotated[
    int, Parameter(group=COMPARISON, converter=whole_number, validator=Number(gte=2, lte=MOST_SEEDS))
]  # fmt: skip


def run(
    first: str,
    second: str,
    /,
    *,
    out: Annotated[Path, Parameter(group=COMPARISON, converter=path_with_a_name)] = Path("runs/compare"),
    seeds: Seeds = 3,
    format: Annotated[PictureFormat, Parameter(group=COMPARISON)] = "png",
    dark: Annotated[bool, Parameter(group=COMPARISON)] = False,
    options: TrainOptions | None = None,  # type: ignore[valid-type]
    output: Output | None = None,
) -> int:
    """Is one setting better than another, or is it the seed? Both are trained on the same seeds.

    nano-llama compare lr=0.002 lr=0.006 --data shakespeare --max-steps 300

    Runs that are already in --out are kept, and stopped ones resumed: more --seeds adds to them.

    Parameters
    ----------
    first
        A: a preset, a train.json or run, or settings as KEY=VALUE,KEY=VALUE.
    second
        B, likewise.
    out
        Folder for the runs, A/seed-0 and so on, and the picture, compare.png or compare.svg.
    seeds
        How many, 2 to MOST: from --seed on.
    format
        Of the picture. svg: for print, sharp at any size.
    dark
        Light lines on black, for a dark slide.
    """
    screen = Screen(output)
    if (started := launch()) is not None:
        raise UserError(
            f"compare trains in one process, and torchrun has started {started.world_size}.",
            hint="Start it without torchrun; or start each run by torchrun, and see them with  nano-llama runs",
        )
    if first == second:
        raise UserError(f"{first!r} is compared with itself.", hint="Give two presets, files or KEY=VALUE that differ.")
    common = explicit(given(options), ())
    given_sides = {name: side_settings(name, common) for name in (first, second)}
    for reason in dict.fromkeys(reason for _, reason in given_sides.values() if reason):
        screen.say(reason, "dim", whole_lines=True)
    sides = {name: settings for name, (settings, _) in given_sides.items()}
    check_comparable(sides)
    longest = sum(settings.max_minutes or 0.0 for settings in sides.values()) * seeds
    takes = f", at most {rough_time_text(60 * longest)}" if longest else ""
    screen.say(f"{2 * seeds} runs{takes}: {first} and {second}, {seeds} seeds each", "dim")
    found: dict[str, list[RunSummary]] = {name: [] for name in sides}
    try:
        for number in range(seeds):  # both sides of a seed, then the next: one that is stopped has whole pairs
            for name, settings in sides.items():
                path = out / folder_name(name) / f"seed-{settings.seed + number}"
                screen.say(f"\n{path}", "bold", whole_lines=True)
                found[name].append(trained(settings.replace(seed=settings.seed + number), path, screen))
    except TrainingInterrupted as error:
        raise stopped(error, sum(map(len, found.values())), 2 * seeds) from None
    in_bytes = len({runs[0].vocab_size for runs in found.values()}) > 1
    values = {name: [loss_of(summary, in_bytes) for summary in runs] for name, runs in found.items()}
    unit = "bits per byte" if in_bytes else "nats per token"
    comparison = Comparison((first, second), values[first], values[second], unit)
    curves = {name: [read_metrics(run.path / "metrics.jsonl") for run in runs] for name, runs in found.items()}
    picture = out / f"compare.{format}"
    first_seed = sides[first].seed
    made_how = caption(found, range(first_seed, first_seed + seeds))
    plot_comparison(comparison, curves, picture, made_how, in_bytes=in_bytes, dark=dark)
    shown = {name: estimate for name, estimate in zip(sides, comparison.estimates, strict=True)}
    screen.result(
        {**comparison.to_json(), "picture": picture, "runs": [run.path for runs in found.values() for run in runs]},
        facts(shown, f"lowest validation loss, {unit}: mean and 95% interval of {seeds} seeds"),
        "",
        comparison.sentence,
        "",
        f"picture: {picture}",
    )
    return 0


assert run.__doc__ is not None
run.__doc__ = run.__doc__.replace("MOST", str(MOST_SEEDS))


def stopped(error: TrainingInterrupted, done: int, of: int) -> TrainingInterrupted:
    """By Ctrl-C during a run, which has said what is kept of it: and of all."""
    told = TrainingInterrupted(
        f"{error.message} Of the comparison, {plural(done, 'run')} of {of} {'is' if done == 1 else 'are'} complete.",
        hint="The same command again goes on from there.",
    )
    told.exit_code = error.exit_code
    return told


def side_settings(name: str, common: dict[str, Any]) -> tuple[TrainSettings, str]:
    """The settings of one side: a preset, a file, a run's folder or KEY=VALUE,KEY=VALUE, with the flags of both.

    And why some of them suit a small text; "" where none had to be chosen.
    """
    path = Path(name).expanduser()
    if name in TRAINING_PRESETS:
        return TrainSettings(**merge([*layers(name, None, {}, ()), common])), ""
    if path.exists():
        file = path / "train.json" if path.is_dir() else path
        return TrainSettings(**merge([*layers(None, file, {}, ()), common])), ""
    if "=" not in name:
        raise UserError(
            f"{name!r} is not a preset, a file, a run's folder or KEY=VALUE.",
            hint=f"For example  lr=0.002,optimizer=muon . Presets: {', '.join(TRAINING_PRESETS)}.",
        )
    own = explicit({}, name.split(","))
    if both := sorted(own.keys() & common.keys()):
        raise UserError(f"{both[0]} is given for both, and in {name!r}.", hint="Leave one of them out.")
    settings, reason = suited(merge([common, own]))
    return TrainSettings(**settings), reason


def check_comparable(sides: dict[str, TrainSettings]) -> None:
    """Raise UserError where their losses would not be of one text, or there would be none, or the settings are one."""
    (first, a), (second, b) = sides.items()
    if a == b:
        raise UserError(f"{first} and {second} are the same settings.", hint="Give two that differ.")
    if a.data != b.data:
        raise UserError(f"{first} trains on {a.data!r}, {second} on {b.data!r}: their losses are not comparable.",
                        hint="Give  --data  for both.")  # fmt: skip
    if a.seed != b.seed:
        raise UserError(f"{first} begins with seed {a.seed}, {second} with {b.seed}.", hint="Give  --seed  for both.")
    for name, settings in sides.items():
        if settings.mesh:
            said = f"{name}: mesh = {settings.mesh!r}, but compare trains in one process."
            raise UserError(said, hint="Leave it out.")
        check_alone(settings)
        if not settings.evaluations:
            raise UserError(f"{name}: evaluations = 0, so there is no validation loss to compare.")


def caption(found: Mapping[str, Sequence[RunSummary]], seeds: range) -> str:
    """How the runs were made, as far as both sides are alike."""
    first, second = (runs[0] for runs in found.values())
    *parts, _ = alike([first, second])  # the last is their seed
    return "; ".join([Path(first.data).name, *parts, f"seeds {seeds[0]} to {seeds[-1]}"])


def folder_name(name: str) -> str:
    """What stands for a side in a path: lr=0.002,optimizer=muon stays as it is, a path loses its slashes."""
    return re.sub(r"[^\w.=,+-]", "_", name.removesuffix("/train.json")).strip("._") or "settings"


def trained(settings: TrainSettings, path: Path, screen: Screen) -> RunSummary:
    """The run at `path`: the one that is there, resumed where it was stopped; else a new one.

    Raises UserError where the one that is there had other settings.
    """
    folder = RunFolder(path)
    there = folder.settings.exists()
    if there:
        saved, wanted = folder.load_settings().to_json(), settings.to_json()
        free = LENGTHS if settings.epochs else ()  # a run holds the steps that its epochs came to
        if other := [name for name in wanted if saved[name] != wanted[name] and name not in free]:
            raise UserError(
                f"{path} is there, with {other[0]} = {saved[other[0]]!r}, not {wanted[other[0]]!r}.",
                hint="Choose another --out.",
            )
        summary, _ = summarize(path)
        if summary.state in ("finished", "reached its loss"):
            screen.say("is there already", "dim")
            return summary
    make_trainer(settings, path, resume=there, progress=live_display(screen)).fit()
    return summarize(path)[0]


def loss_of(summary: RunSummary, in_bytes: bool) -> float:
    """The lowest validation loss of a run. Raises UserError if it came to none."""
    value = summary.val_bits_per_byte if in_bytes else summary.val_loss
    if value is None:
        raise UserError(
            f"{summary.path} came to no validation loss.", hint="Give it more --max-minutes or --max-steps."
        )
    return value
