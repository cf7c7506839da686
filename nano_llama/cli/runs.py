"""`nano-llama runs`: training runs beside each other, in a table and in one plot of their curves.

What is read of a run: training/run_summary.py. How it is drawn: training/plots.py. Tests: tests/cli/test_runs.py.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from nano_llama.cli.common import Output, Screen, table
from nano_llama.core.errors import NanoLlamaError, UserError
from nano_llama.core.units import count_text, time_text
from nano_llama.training.metrics import Row
from nano_llama.training.plots import plot_run, plot_runs
from nano_llama.training.run_summary import RunSummary, alike, find_runs, summarize

Key = Literal[
    "name", "state", "parameters", "optimizer", "lr", "tokens", "val_loss", "val_bits_per_byte", "tokens_per_second",
    "elapsed_s",
]  # fmt: skip
HEADER = (
    "run", "parameters", "optimizer", "lr", "tokens", "best val loss", "bits per byte", "tokens/s", "time", "state",
)  # fmt: skip


def run(
    folders: Annotated[tuple[Path, ...], Parameter(show_default=False)] = (),
    /,
    *,
    sort: Key = "val_bits_per_byte",
    descending: bool = False,
    out: Annotated[Path | None, Parameter(show_default=False)] = None,
    dark: bool = False,
    output: Output | None = None,
) -> int:
    """Compare training runs: a table, and a plot of their losses by tokens and by time. Runs may be in progress.

    Of a single run, the plot is its loss.png, drawn again: as svg, or dark.

    Losses in nats per token are comparable only between runs with the same tokenizer; bits per byte always are, on the
    same text.

    Parameters
    ----------
    folders
        Runs, or folders that hold runs. By default the folder runs.
    sort
        The column to sort by; runs without that value come last.
    descending
        The largest first.
    out
        The plot, .png or .svg. By default runs.png in the first folder that holds runs, or beside the first run.
    dark
        Light lines on black, for a dark slide.
    """
    screen = Screen(output)
    found, left_out = gather(folders or (Path("runs"),))
    if not found and not folders and not Path("runs").is_dir():
        raise UserError("There is no folder 'runs' here.", hint="Name the folder:  nano-llama runs FOLDER")
    reasons = [why if path in why else f"{path}: {why}" for path, why in left_out.items()]
    if not found:
        raise UserError(
            f"No run to show: {'; '.join(reasons)}", hint="Give the folder of a run, or one that holds runs."
        )
    for reason in reasons:
        screen.say(f"not shown: {reason}", "yellow", whole_lines=True)
    found.sort(key=lambda pair: pair[0].name)
    known = [pair for pair in found if getattr(pair[0], sort) is not None]
    known.sort(key=lambda pair: getattr(pair[0], sort), reverse=descending)
    found = known + [pair for pair in found if getattr(pair[0], sort) is None]
    picture = out or default_picture([summary.path for summary, _ in found], folders)
    one_tokenizer = len({summary.vocab_size for summary, _ in found}) == 1
    if len(found) == 1:
        (summary, rows) = found[0]
        plot_run(rows, picture, summary.title, "; ".join(summary.made_how), dark=dark)
    else:
        named = [(summary.name, rows) for summary, rows in found]
        texts = ", ".join(dict.fromkeys(Path(summary.data).name for summary, _ in found))
        made_how = "; ".join([f"trained on {texts}", *alike([summary for summary, _ in found])])
        plot_runs(named, picture, made_how, in_bytes=not one_tokenizer, dark=dark)
    screen.result(
        {
            "runs": [summary.to_json() for summary, _ in found],
            "left_out": [{"path": path, "why": why} for path, why in left_out.items()],
            "picture": picture,
        },
        table(HEADER, [line(summary) for summary, _ in found]),
    )
    screen.say(f"\nCurves: {picture}", "dim", whole_lines=True)
    if len({summary.data for summary, _ in found}) > 1:
        screen.say("They were trained on different data, so their losses are not comparable.", "dim")
    return 0


def gather(folders: Sequence[Path]) -> tuple[list[tuple[RunSummary, list[Row]]], dict[str, str]]:
    """Every run in these folders, once; and what was left out, damaged or not a run, as path -> reason."""
    paths: dict[Path, Path] = {}  # resolved path: the path as given
    left_out: dict[str, str] = {}
    for folder in folders:
        try:
            for path in find_runs(folder.expanduser()):
                paths.setdefault(path.resolve(), path)
        except NanoLlamaError as error:
            left_out[str(folder)] = error.message
    names = short_names(list(paths.values()))
    found = []
    for path, name in zip(paths.values(), names, strict=True):
        try:
            found.append(summarize(path, name))
        except NanoLlamaError as error:
            left_out[str(path)] = error.message
    return found, left_out


def short_names(paths: Sequence[Path]) -> list[str]:
    """Paths without the folder they all share: a/runs/x, a/runs/y/z -> x, y/z. A single one: its last part."""
    if len(paths) < 2:
        return [path.resolve().name for path in paths]
    common = Path(os.path.commonpath([path.resolve().parent for path in paths]))
    return [str(path.resolve().relative_to(common)) for path in paths]


def default_picture(runs: Sequence[Path], folders: Sequence[Path]) -> Path:
    """runs.png in the first given folder that holds runs but is not one, else beside the first run."""
    holders = [folder for folder in folders or (Path("runs"),) if folder.is_dir() and folder not in runs]
    return (holders[0] if holders else runs[0].parent) / "runs.png"


def line(summary: RunSummary) -> list[Any]:
    """A row of the table; a dash where there is no value yet."""
    return [
        summary.name,
        count_text(summary.parameters),
        summary.optimizer,
        f"{summary.lr:g}",
        count_text(summary.tokens),
        _figure(summary.val_loss),
        _figure(summary.val_bits_per_byte),
        "-" if summary.tokens_per_second is None else f"{summary.tokens_per_second:,.0f}",
        "-" if summary.elapsed_s is None else time_text(summary.elapsed_s),
        summary.state,
    ]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
