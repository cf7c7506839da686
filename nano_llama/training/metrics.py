"""metrics.jsonl: one JSON object per line, appended during a run, cut back when it is resumed.

    step, tokens           updates so far, and tokens they have seen
    train_loss             nats per token, mean over the steps since the previous line
    train_bits_per_byte    the same in bits per byte, by the training split's bytes per token
    lr                     learning rate of this step
    grad_norm              global norm of this step's gradient, before clipping
    tokens_per_second      of training alone, since the previous line (without evaluations and checkpoints)
    mfu                    model FLOPs utilization, 0 to 1, since the previous line; absent if no peak is known
    data_stall             fraction of the training time, 0 to 1, that steps waited for data, since that line
    checkpoint_pause_s     seconds that training has paused for checkpoints in this process
    peak_memory_bytes      peak so far: of the GPU if the model is on one, else of the process; 0: unknown
    deterministic          whether the same run gives the same bits again: on a CPU, or with deterministic = on
    elapsed_s              seconds since the process's start; a resumed run continues from its checkpoint
    seconds_left           expected until the run is over
    val_loss               nats per token over the whole validation split, if it was evaluated (evaluation.py)
    val_bits_per_byte      the same, in bits per byte of text
    val_partial            true if there was time for the head of the split only
    val_early              true if training has not come to all tasks of the split yet: no model is chosen by this loss
    val_accuracy           of runs on pictures: {kind of question: share of right answers}, 0 to 1, on the validation
                           pictures; letters: of the letters of words (data/vqa/answers.py)
    model_step             on the last line of a run that went past its lowest validation loss: the step that had it,
                           whose weights are the run's model (final_model.py)

where settings ask for kernels, or auto has measured them:

    attention              sdpa or triton
    attention_ms           {each: milliseconds of a layer, forward and backward}, if measured
    kernels                those in use, of rmsnorm, rope, swiglu and cross_entropy

and of a run over many processes:

    mesh                   its axes: "dp=2,tp=2"
    params_per_rank        parameters that the first rank holds
    comm_bytes             {axis: bytes} that the first rank sends in a step
    rank_memory_bytes      the peak so far of every rank
    rank_data_stall        as data_stall, of every rank

MEASURED lists what depends on the machine and differs between equal runs.
Tests: tests/training/test_metrics.py.
"""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from nano_llama.core import files
from nano_llama.core.errors import EnvironmentFault, FormatError, UserError

Row = dict[str, Any]

MEASURED = frozenset(
    {
        "tokens_per_second", "mfu", "data_stall", "checkpoint_pause_s", "peak_memory_bytes", "elapsed_s",
        "seconds_left", "rank_memory_bytes", "rank_data_stall",
        "attention_ms",
    }
)  # fmt: skip


def read_metrics(path: str | Path) -> list[Row]:
    """The rows of a metrics.jsonl. A last line that a kill cut off is left out; other damage is a FormatError."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.", hint="Is it the folder of a training run?") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not a metrics file ({error}).") from error
    rows: list[Row] = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is not a whole line
        try:
            row = json.loads(line)
        except ValueError as error:
            raise FormatError(f"{path}, line {number}: not JSON ({error}).") from error
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise FormatError(f"{path}, line {number}: an object with 'step' was expected, got {line[:80]!r}.")
        rows.append(row)
    return rows


def best_of(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row with the lowest validation loss, the first of equal ones; {} if there is none.

    Losses on a part of the split count only where there are no others; early ones do not compare, so that of these the
    last is taken.
    """
    evaluated = [row for row in rows if "val_loss" in row]
    late = [row for row in evaluated if not row.get("val_early")] or evaluated[-1:]
    whole = [row for row in late if not row.get("val_partial")]
    return min(whole or late, key=lambda row: row["val_loss"], default={})


class MetricsWriter:
    """Appends rows to a metrics.jsonl; each is flushed at once, so a kill loses none.

    `keep_to` cuts an existing file back to the rows up to that step, from which a run is resumed; without it the file
    starts empty.
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
                f"Cannot write {self.path}: {error.strerror}.", hint="Free some space; then use --resume."
            ) from error

    def close(self) -> None:
        with suppress(OSError):  # the failed write was reported; closing would try it again
            self._file.close()


def _line(row: Mapping[str, Any]) -> str:
    known = {key: value for key, value in row.items() if value is not None}
    finite = {key: value for key, value in known.items() if not isinstance(value, float) or math.isfinite(value)}
    return json.dumps(finite, allow_nan=False) + "\n"
