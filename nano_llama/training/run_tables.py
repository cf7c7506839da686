"""Runs side by side as data: the settings in which they differ, and CSV files for pandas, R or a spreadsheet.

A CSV file is as RFC 4180 has it, in UTF-8: a header, a comma between cells, quotes where a cell holds a comma, CRLF at
the end of a line. A cell without a value is empty; a number has all its digits. `nano-llama runs` writes them.
Tests: tests/training/test_run_tables.py.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nano_llama.core.files import atomic_path
from nano_llama.training.metrics import Row
from nano_llama.training.run_summary import RunSummary

RESULTS = {  # column of runs.csv -> field of RunSummary
    "run": "name", "path": "path", "state": "state", "parameters": "parameters", "vocab_size": "vocab_size",
    "step": "step", "tokens": "tokens", "tokens_per_step": "batch_tokens", "train_loss_nats_per_token": "train_loss",
    "best_val_loss_nats_per_token": "val_loss", "best_val_bits_per_byte": "val_bits_per_byte", "best_step": "best_step",
    "model_step": "model_step", "tokens_per_second": "tokens_per_second", "elapsed_s": "elapsed_s",
}  # fmt: skip
LOSSES = {name: f"{name}_nats_per_token" for name in ("train_loss", "val_loss")}  # metrics.jsonl -> column


def differing_settings(runs: Sequence[RunSummary]) -> tuple[dict[str, list[Any]], int]:
    """{setting: its value in each run}, where they are not all the same; and how many are.

    A setting that a run does not have, since it was not made by the same command, is None there.
    """
    settings = [run.settings.to_json() for run in runs]
    values = {name: [one.get(name) for one in settings] for name in _names(settings)}
    differing = {name: found for name, found in values.items() if any(value != found[0] for value in found)}
    return differing, len(values) - len(differing)


def run_rows(runs: Sequence[RunSummary]) -> list[Row]:
    """A row per run: its results, then every setting by its name in train.json."""
    return [{column: getattr(run, field) for column, field in RESULTS.items()} | run.settings.to_json() for run in runs]


def metrics_rows(named: Iterable[tuple[str, Sequence[Row]]]) -> list[Row]:
    """A row per line of each run's metrics.jsonl (metrics.py): the run's name, then the line's values.

    What holds several numbers has a column for each: comm_bytes.dp, rank_memory_bytes.0. Several names are one cell.
    """
    return [{"run": name} | dict(_flat(row)) for name, rows in named for row in rows]


def _flat(row: Row) -> Iterable[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _flat({f"{name}.{key}": part for key, part in value.items()})
        elif isinstance(value, list) and all(isinstance(part, str) for part in value):
            yield name, " ".join(value)
        elif isinstance(value, list):
            yield from _flat({f"{name}.{place}": part for place, part in enumerate(value)})
        else:
            yield LOSSES.get(name, name), value


def write_csv(path: str | Path, rows: Sequence[Row]) -> None:
    """Every column that any row has, `run` first, in the order in which they come. The file is replaced atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _names([{"run": None}, *rows]))  # quotes and line ends as RFC 4180 has them
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", errors="backslashreplace", newline="")


def _cell(value: Any) -> Any:
    """true and false, which pandas, R and spreadsheets know; all else as csv writes it."""
    return str(value).lower() if isinstance(value, bool) else value


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """All keys, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))
