"""`nano-llama runs`: training runs beside each other, in a table and in one plot of their curves, or as CSV.

What is read of a run: training/run_summary.py. How it is drawn: training/plots.py. What differs between them, and CSV:
training/run_tables.py. Tests: tests/cli/test_runs.py.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from nano_llama.cli.common import Output, Screen, table
from nano_llama.core.errors import NanoLlamaError, UserError
from nano_llama.core.units import count_text, plural, time_text
from nano_llama.training.metrics import Row
from nano_llama.training.plots import plot_run, plot_runs
from nano_llama.training.run_summary import RunSummary, alike, find_runs, summarize
from nano_llama.training.run_tables import differing_settings, metrics_rows, run_rows, write_csv

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
    diff: bool = False,
    out: Annotated[Path | None, Parameter(show_default=False)] = None,
    dark: bool = False,
    csv: Annotated[Path | None, Parameter(show_default=False)] = None,
    metrics_csv: Annotated[Path | None, Parameter(show_default=False)] = None,
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
    diff
        Show the settings in which the runs differ instead, with their losses.
    out
        The plot, .png or .svg. By default runs.png in the first folder that holds runs, or beside the first run.
    dark
        Light lines on black, for a dark slide.
    csv
        Also write a .csv file with a row per run: its results and every setting.
    metrics_csv
        Also write a .csv file with a row per line of each run's metrics.jsonl.
    """
    check_csv({"--csv": csv, "--metrics-csv": metrics_csv})
    screen = Screen(output)
    found, left_out = gather(folders or (Path("runs"),))
    if not found and not folders and not Path("runs").is_dir():
        raise UserError("There is no folder 'runs' here.", hint="Name the folder:  nano-llama runs FOLDER")
    reasons = [why if path in why else f"{path}: {why}" for path, why in left_out.items()]
    if not found:
        raise UserError(
            f"No run to show: {'; '.join(reasons)}", hint="Give the folder of a run, or one that holds runs."
        )
    if diff and len(found) == 1:
        raise UserError(f"--diff compares runs, and there is only one: {found[0][0].path}.", hint="Name another.")
    for reason in reasons:
        screen.say(f"not shown: {reason}", "yellow", whole_lines=True)
    found.sort(key=lambda pair: pair[0].name)
    known = [pair for pair in found if getattr(pair[0], sort) is not None]
    known.sort(key=lambda pair: getattr(pair[0], sort), reverse=descending)
    found = known + [pair for pair in found if getattr(pair[0], sort) is None]
    picture = out or default_picture([summary.path for summary, _ in found], folders)
    draw(found, picture, dark)
    summaries = [summary for summary, _ in found]
    data = {
        "runs": [summary.to_json() for summary in summaries],
        "left_out": [{"path": path, "why": why} for path, why in left_out.items()],
        "picture": picture,
        "csv": csv,
        "metrics_csv": metrics_csv,
    }
    if csv is not None:
        write_csv(csv, run_rows(summaries))
    if metrics_csv is not None:
        write_csv(metrics_csv, metrics_rows((summary.name, rows) for summary, rows in found))
    if diff:
        differing, equal = differing_settings(summaries)
        data |= {"diff": differing, "equal_settings": equal}
        screen.result(data, *diff_tables(summaries, differing, equal))
    else:
        screen.result(data, table(HEADER, map(line, summaries)))
    screen.say()
    for what, path in (("Curves", picture), ("Results and settings", csv), ("Metrics", metrics_csv)):
        if path is not None:
            screen.say(f"{what}: {path}", "dim", whole_lines=True)
    if len({summary.data for summary, _ in found}) > 1:
        screen.say("They were trained on different data, so their losses are not comparable.", "dim")
    return 0


def check_csv(files: Mapping[str, Path | None]) -> None:
    """Raise UserError unless each is a .csv of its own: a slip shall not replace a metrics.jsonl."""
    given = {flag: path for flag, path in files.items() if path is not None}
    for flag, path in given.items():
        if path.suffix.lower() != ".csv":
            raise UserError(f"{flag} {path}: the name must end in .csv.", hint=f"For example  {flag} runs.csv")
    if len(set(given.values())) < len(given):
        raise UserError(f"{' and '.join(given)} name the same file.", hint="Give each a name of its own.")


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


def draw(found: Sequence[tuple[RunSummary, Sequence[Row]]], picture: Path, dark: bool) -> None:
    """The curves of all, or of a single run its loss.png."""
    if len(found) == 1:
        (summary, rows) = found[0]
        plot_run(rows, picture, summary.title, "; ".join(summary.made_how), dark=dark)
        return
    named = [(summary.name, rows) for summary, rows in found]
    texts = ", ".join(dict.fromkeys(Path(summary.data).name for summary, _ in found))
    one_tokenizer = len({summary.vocab_size for summary, _ in found}) == 1
    made_how = "; ".join([f"trained on {texts}", *alike([summary for summary, _ in found])])
    plot_runs(named, picture, made_how, in_bytes=not one_tokenizer, dark=dark)


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


def diff_tables(summaries: Sequence[RunSummary], differing: Mapping[str, Sequence[Any]], equal: int) -> list[Any]:
    """A row for every setting that differs, a column for every run, and below them what each run came to."""
    rows = [[name, *map(_setting, values)] for name, values in differing.items()]
    rows += [
        [""] * (1 + len(summaries)),
        ["best val loss", *(_figure(summary.val_loss) for summary in summaries)],
        ["bits per byte", *(_figure(summary.val_bits_per_byte) for summary in summaries)],
        ["tokens", *(count_text(summary.tokens) for summary in summaries)],
    ]
    header = ("setting", *(summary.name for summary in summaries))
    said = f"{plural(equal, 'setting')} {'is' if equal == 1 else 'are'} the same in all of them."
    return [table(header, rows), "", said]


def _setting(value: Any) -> str:
    """As --set takes it; a dash for none."""
    if value is None or isinstance(value, bool):
        return "-" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
