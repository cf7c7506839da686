"""A fine-tuning run with its report: the model is examined, trained by the loop, examined again.

Tests: tests/training/finetune/test_run.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nano_llama.training.end_reserve import EXIT_SECONDS
from nano_llama.training.finetune.examination import Examination, Examiner, KeepBefore, read_before
from nano_llama.training.finetune.report import FILE, write_report
from nano_llama.training.finetune.settings import FinetuneSettings
from nano_llama.training.interrupt import GracefulInterrupt
from nano_llama.training.loop import TrainingLoop
from nano_llama.training.outcome import TrainingResult

MOST_SECONDS = 60.0  # of an examination
SHARE = 0.1  # of a run by the clock, for each of the two
LONGER = 3.0  # times as long as before is reserved for the second: right answers are written to their end


@dataclass(frozen=True)
class FinetuneResult:
    """before: None where a run was resumed that has kept none."""

    result: TrainingResult
    before: Examination | None
    after: Examination
    report: Path


def fit_with_report(
    loop: TrainingLoop, keep: KeepBefore, show: Callable[[Examination], None] = lambda before: None
) -> FinetuneResult:
    """Train to the end, and write report.md. keep: one of the loop's callbacks. show: is given what was found before.

    Raises what `loop.fit` raises: no report then, and what was found before is kept for when the run is resumed. Once
    the model is saved, Ctrl-C ends the examination alone.
    """
    settings = loop.settings
    assert isinstance(settings, FinetuneSettings), "fine-tuning has a report"
    seconds = MOST_SECONDS
    if settings.max_minutes is not None:
        seconds = min(seconds, SHARE * 60.0 * settings.max_minutes)
    interrupt = GracefulInterrupt()
    examiner = Examiner(loop, interrupted=lambda: interrupt.pressed)
    before = keep.found = examiner.examine(seconds) if loop.state.step == 0 else read_before(loop.folder.path)
    if before is not None:
        show(before)
    loop.clock.reserve_afterwards(min(seconds, LONGER * before.seconds + 1.0) if before is not None else seconds)
    result = loop.fit()
    seconds = MOST_SECONDS
    if (left := loop.clock.until_deadline()) is not None:
        seconds = min(seconds, left - EXIT_SECONDS)
    with interrupt:
        after = examiner.examine(seconds, before)
    if loop.ranks.rank == 0:
        write_report(loop, result, before, after)
    return FinetuneResult(result, before, after, loop.folder.path / FILE)
