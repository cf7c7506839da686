"""metrics.jsonl: one JSON object a line, appended while a run goes on, cut back when it is resumed.

    step, tokens           updates so far, and tokens they have seen
    train_loss             nats a token, mean over the steps since the line before
    train_bits_per_byte    the same in bits, by the training split's bytes a token
    lr                     learning rate of this step
    grad_norm              length of this step's whole gradient, before clipping
    tokens_per_second      training alone, since the line before (evaluations and checkpoints left out)
    mfu                    model FLOPs utilization, 0 to 1, since the line before; left out where no peak is known
    data_stall             share of the training time, 0 to 1, that steps waited for data, since the line before
    checkpoint_pause_s     seconds that this process's training stood still for checkpoints so far
    peak_memory_bytes      at most so far: of the GPU where the model lies on one, else of the process; 0: unknown
    elapsed_s              seconds since the process's start; a resumed run counts on from its checkpoint
    seconds_left           expected until the run is over
    val_loss               nats a token over the whole validation split, where it was evaluated (evaluation.py)
    val_bits_per_byte      the same, in bits per byte of text
    val_partial            true where the clock left time for the head of the split only

What depends on the machine, and differs between equal runs, is in MEASURED. Not here: the picture of it (plots.py).
Tests: tests/training/test_metrics.py.
"""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from nano_llama.core import files
from nano_llama.core.errors import EnvironmentFault, FormatError, UserError

Row = dict[str, Any]

MEASURED = frozenset(
    {
        "tokens_per_second", "mfu", "data_stall", "checkpoint_pause_s", "peak_memory_bytes", "elapsed_s",
        "seconds_left",
    }
)  # fmt: skip


def read_metrics(path: str | Path) -> list[Row]:
    """The rows of a metrics.jsonl. A last line cut off by a kill is left out; any other damage is a FormatError."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.", hint="Is it the folder of a training run?") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not a metrics file ({error}).") from error
    rows: list[Row] = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is no whole line
        try:
            row = json.loads(line)
        except ValueError as error:
            raise FormatError(f"{path}, line {number}: not JSON ({error}).") from error
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise FormatError(f"{path}, line {number}: an object with 'step' was expected, got {line[:80]!r}.")
        rows.append(row)
    return rows


class MetricsWriter:
    """Appends rows to a metrics.jsonl; each is handed to the system at once, so that a kill loses none.

    `keep_to` cuts an existing file back to the rows up to that step, for a run that goes on from there; without it the
    file begins empty.
    """

    def __init__(self, path: str | Path, keep_to: int | None = None):
        self.path = Path(path)
        kept = []
        if keep_to is not None and self.path.exists():
            kept = [row for row in read_metrics(self.path) if row["step"] <= keep_to]
        files.write_text(self.path, "".join(map(_line, kept)))
        self._file: TextIO = self.path.open("a", encoding="utf-8")

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row. None is left out, and a number that is not finite: JSON has no word for it."""
        try:
            self._file.write(_line(row))
            self._file.flush()
        except OSError as error:
            raise EnvironmentFault(
                f"Cannot write {self.path}: {error.strerror}.", hint="Free some space; --resume goes on with the run."
            ) from error

    def close(self) -> None:
        with suppress(OSError):  # a line that could not be written was told; closing would try it again
            self._file.close()


def _line(row: Mapping[str, Any]) -> str:
    known = {key: value for key, value in row.items() if value is not None}
    finite = {key: value for key, value in known.items() if not isinstance(value, float) or math.isfinite(value)}
    return json.dumps(finite, allow_nan=False) + "\n"
