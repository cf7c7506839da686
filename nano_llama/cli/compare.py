"""`nano-llama compare A B ...`: settings trained on the same seeds, their error bars, one picture, and a verdict.

What the verdict means: training/comparison.py. Tests: tests/cli/test_compare.py.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from nano_llama.cli.common import Output, PictureFormat, Screen, path_with_a_name, table, whole_number
from nano_llama.cli.train import check_alone, live_display, make_trainer
from nano_llama.cli.train_options import REST, TrainOptions, given
from nano_llama.cli.wide_table import WideTable
from nano_llama.core import files
from nano_llama.core.env import launch
from nano_llama.core.errors import UserError
from nano_llama.core.units import plural, rough_time_text
from nano_llama.training.comparison import SURE, Comparison
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
    int, Parameter(group=COMPARISON, converter=whole_number, validator=Number(gte=2))
]  # fmt: skip


def run(
    first: str,
    second: str,
    /,
    *more: str,
    out: Annotated[Path, Parameter(group=COMPARISON, converter=path_with_a_name)] = Path("runs/compare"),
    seeds: Seeds = 3,
    format: Annotated[PictureFormat, Parameter(group=COMPARISON)] = "png",
    dark: Annotated[bool, Parameter(group=COMPARISON)] = False,
    options: TrainOptions | None = None,  # type: ignore[valid-type]
    output: Output | None = None,
) -> int:
    """Is one setting better than another, or is it the seed? All are trained on the same seeds.

    nano-llama compare lr=0.002 lr=0.006 --data shakespeare --max-steps 300

    A sweep:  nano-llama compare lr=0.001 lr=0.003 lr=0.01 lr=0.03 --data shakespeare --max-steps 300

    Every setting is compared with the first; with more than two, the intervals are wider, for as many comparisons.
    Runs that are already in --out are kept, and stopped ones resumed: more --seeds or settings add to them.

    Parameters
    ----------
    first
        A: a preset, a train.json or run, or settings as KEY=VALUE,KEY=VALUE.
    second
        B, likewise.
    more
        C, D and so on.
    out
        Folder for the runs, A/seed-0 and so on, and the picture, compare.png or compare.svg.
    seeds
        Number of seeds, 2 or more: --seed and those after it.
    format
        Format of the picture. svg: for print, sharp at any size.
    dark
        Light lines on black, for a dark slide.
    """
    screen = Screen(output)
    if (started := launch()) is not None:
        raise UserError(
            f"compare trains in one process, and torchrun has started {started.world_size}.",
            hint="Start it without torchrun; or start each run by torchrun, and see them with  nano-llama runs",
        )
    names = [first, second, *more]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{twice!r} is compared with itself.", hint="Give presets, files or KEY=VALUE that differ.")
    common = explicit(given(options), ())
    given_sides = {name: side_settings(name, common) for name in names}
    sides = {name: settings for name, (settings, _) in given_sides.items()}
    check_comparable(sides)
    files.check_folder(out)
    # both sides of a seed, then the next: a comparison that is stopped has whole pairs
    planned = [
        (name, settings.replace(seed=settings.seed + n)) for n in range(seeds) for name, settings in sides.items()
    ]
    paths = [out / folder_name(name) / f"seed-{settings.seed}" for name, settings in planned]
    there = [has_run_of(settings, path) for (_, settings), path in zip(planned, paths, strict=True)]
    longest = sum(settings.max_minutes or 0.0 for _, settings in planned)
    takes = f", at most {rough_time_text(60 * longest)}" if longest else ""
    reasons = dict.fromkeys(reason for _, reason in given_sides.values() if reason)
    heading = [*reasons, f"{len(planned)} runs{takes}: {', '.join(names)}; {seeds} seeds each"]
    found: dict[str, list[RunSummary]] = {name: [] for name in sides}
    try:
        for (name, settings), path, resume in zip(planned, paths, there, strict=True):
            found[name].append(trained(settings, path, screen, heading, resume=resume))
            heading = []
    except TrainingInterrupted as error:
        raise stopped(error, sum(map(len, found.values())), len(planned)) from None
    in_bytes = len({runs[0].vocab_size for runs in found.values()}) > 1
    losses = {name: [loss_of(summary, in_bytes) for summary in runs] for name, runs in found.items()}
    comparison = Comparison(losses, "bits per byte" if in_bytes else "nats per token")
    curves = {name: [read_metrics(run.path / "metrics.jsonl") for run in runs] for name, runs in found.items()}
    picture = out / f"compare.{format}"
    first_seed = sides[first].seed
    made_how = caption(found, range(first_seed, first_seed + seeds))
    plot_comparison(comparison, curves, picture, made_how, in_bytes=in_bytes, dark=dark)
    screen.result(
        {**comparison.to_json(), "picture": picture, "runs": [run.path for runs in found.values() for run in runs]},
        comparison_table(comparison),
        "",
        comparison.sentence,
        "",
        f"picture: {picture}",
    )
    return 0


def comparison_table(comparison: Comparison) -> WideTable:
    """A row per setting, the lowest loss first."""
    first = comparison.first
    rows = [
        [name, comparison.estimate(name), *(["", ""] if name == first else against_first(comparison, name))]
        for name in comparison.sorted_names
    ]
    together = "" if comparison.num_tests == 1 else f" ({SURE:.0%} together)"
    header = ("setting", f"mean and {SURE:.0%} interval", f"difference from {first}{together}", "")
    return table(header, rows, f"lowest validation loss, {comparison.unit}, {comparison.num_seeds} seeds")


def against_first(comparison: Comparison, name: str) -> list[str]:
    gap = comparison.difference(name)
    return [f"{gap.mean:+.4f} ± {gap.margin:.4f}", comparison.verdict(name)]


def stopped(error: TrainingInterrupted, done: int, of: int) -> TrainingInterrupted:
    """By Ctrl-C during a run, which has said what is kept of it: and of all."""
    told = TrainingInterrupted(
        f"{error.message} Of the comparison, {plural(done, 'run')} of {of} {'is' if done == 1 else 'are'} complete.",
        hint="Run the same command again to go on.",
    )
    told.exit_code = error.exit_code
    return told


def side_settings(name: str, common: dict[str, Any]) -> tuple[TrainSettings, str]:
    """The settings of one side: a preset, a file, a run's folder or KEY=VALUE,KEY=VALUE, with the flags of all.

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
        raise UserError(f"{both[0]} is given for all, and in {name!r}.", hint="Leave one of them out.")
    settings, reason = suited(merge([common, own]))
    return TrainSettings(**settings), reason


def check_comparable(sides: dict[str, TrainSettings]) -> None:
    """Raise UserError where their losses would not be of one text, or there would be none, or two are the same."""
    (first, of_first), *others = sides.items()
    if not all(settings.data for settings in sides.values()):
        raise UserError(f"compare needs --data. For example:  nano-llama compare {EXAMPLE}")
    for name, settings in others:
        if settings.data != of_first.data:
            raise UserError(
                f"{first} trains on {of_first.data!r}, {name} on {settings.data!r}: their losses are not comparable.",
                hint="Give  --data  for all.",
            )
        if settings.seed != of_first.seed:
            raise UserError(
                f"{first} begins with seed {of_first.seed}, {name} with {settings.seed}.", hint="Give  --seed  for all."
            )
    for (name, settings), (other, of_other) in combinations(sides.items(), 2):
        if settings == of_other:
            raise UserError(f"{name} and {other} are the same settings.", hint="Give settings that differ.")
        if folder_name(name) == folder_name(other):
            raise UserError(f"{name} and {other} would share a folder.", hint="Rename one of them.")
    for name, settings in sides.items():
        if settings.mesh:
            said = f"{name}: mesh = {settings.mesh!r}, but compare trains in one process."
            raise UserError(said, hint="Leave it out.")
        check_alone(settings)
        if not settings.evaluations:
            raise UserError(f"{name}: evaluations = 0, so there is no validation loss to compare.")


def caption(found: Mapping[str, Sequence[RunSummary]], seeds: range) -> str:
    """How the runs were made, as far as all sides are alike."""
    firsts = [runs[0] for runs in found.values()]
    *parts, _ = alike(firsts)  # the last is their seed
    return "; ".join([Path(firsts[0].data).name, *parts, f"seeds {seeds[0]} to {seeds[-1]}"])


def folder_name(name: str) -> str:
    """What stands for a side in a path: lr=0.002,optimizer=muon stays as it is, a path loses its slashes."""
    return re.sub(r"[^\w.=,+-]", "_", name.removesuffix("/train.json")).strip("._") or "settings"


def has_run_of(settings: TrainSettings, path: Path) -> bool:
    """Whether the run at `path` is there already, finished or not. Raises UserError where it had other settings."""
    folder = RunFolder(path)
    if not folder.settings.exists():
        return False
    saved, wanted = folder.load_settings().to_json(), settings.to_json()
    free = LENGTHS if settings.epochs else ()  # a run holds the steps that its epochs came to
    if other := [name for name in wanted if saved[name] != wanted[name] and name not in free]:
        raise UserError(
            f"{path} already exists, with {other[0]} = {saved[other[0]]!r}, not {wanted[other[0]]!r}.",
            hint="Choose another --out.",
        )
    return True


def trained(settings: TrainSettings, path: Path, screen: Screen, heading: Sequence[str], *, resume: bool) -> RunSummary:
    """The run at `path`: the one that is there, resumed where it was stopped; else a new one.

    heading: said before it, once it can begin; what prevents that is said alone.
    """
    summary = summarize(path)[0] if resume else None
    finished = summary is not None and summary.state in ("finished", "reached its loss")
    trainer = None if finished else make_trainer(settings, path, resume=resume, progress=live_display(screen))
    for line in heading:
        screen.say(line, "dim", whole_lines=True)
    screen.say(f"\n{path}", "bold", whole_lines=True)
    if trainer is None:
        assert summary is not None, "a run that has finished is there"
        screen.say("is there already", "dim")
        return summary
    trainer.fit()
    return summarize(path)[0]


def loss_of(summary: RunSummary, in_bytes: bool) -> float:
    """The lowest validation loss of a run. Raises UserError if it came to none."""
    value = summary.val_bits_per_byte if in_bytes else summary.val_loss
    if value is None:
        raise UserError(
            f"{summary.path} ended before its first validation loss.", hint="Give it more --max-minutes or --max-steps."
        )
    return value
