"""The live display of a run: a bar with loss, speed and time left; in a pipe, a plain line now and then.

Tests: tests/training/test_progress_bar.py.
"""

import time
from collections.abc import Iterable, Sequence

from rich.console import Console, RenderableType
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from nano_llama.core.units import clock_text
from nano_llama.training.callback import Callback, RunFacts
from nano_llama.training.evaluation import Evaluation
from nano_llama.training.record import StepRecord
from nano_llama.training.samples import MARK, Sample

LINE_EVERY_SECONDS = 10.0  # if there is no terminal to draw on
SAMPLE_COLUMNS = 100  # of one sample, on one line
NOTABLE_STALL = 0.02  # of the time: from here on, waiting for data is shown


class TimeLeft(ProgressColumn):
    """What is left of the run, counted down at each refresh: a step, an evaluation and saving take long."""

    def render(self, task: Task) -> Text:
        over_at = task.fields.get("over_at")
        return Text("" if over_at is None else left_text(over_at - time.monotonic()))


class Bars(RichProgress):
    """Bars, and below them the figures, on two lines where the terminal is narrow."""

    figures = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.figures:
            yield Text(self.figures, style="dim")


class ProgressBar(Callback):
    """Draws on `console`."""

    def __init__(self, console: Console):
        self.console = console
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[text]}"),
            TimeLeft(),
        )
        self.bars = Bars(
            *columns, console=console, transient=True, refresh_per_second=4, disable=not console.is_terminal
        )
        self.tasks: dict[str, TaskID] = {}
        self.line_at = 0.0

    def preparing(self, what: str, done: int, total: int | None) -> None:
        self._draw(what, done, total, f"{done / 1e6:,.1f} MB")

    def started(self, facts: RunFacts) -> None:
        self._clear()
        resumed = f", resuming from step {facts.resumed_at:,}" if facts.resumed_at else ""
        trained, all_ = facts.preflight.parameters, facts.config.num_parameters
        part = f", of which {trained:,} ({trained / all_:.1%}) are trained," if trained != all_ else ""
        same = "" if facts.deterministic else " (not the same bits each time: --deterministic on)"
        shown = "endless pictures" if facts.settings.from_pictures else f"{facts.train_tokens:,} training tokens"
        self.console.print(
            f"{all_:,} parameters{part} on {facts.device}{same}; {shown},"
            f" {facts.val_tokens:,} validation tokens{resumed}"
        )
        for line in facts.preflight.lines():
            self.console.print(line)

    def stepped(self, record: StepRecord) -> None:
        figures, over, now = figures_text(record), record.progress >= 1.0, time.monotonic()
        self.bars.figures = f"  {figures}"
        text = f"step {record.step:,} · {'saving' if over else ''}"
        self._draw("training", round(1000 * record.progress), 1000, text, None if over else now + record.seconds_left)
        if not self.console.is_terminal and now - self.line_at >= LINE_EVERY_SECONDS:
            self.console.print(f"step {record.step:,}: {figures} · {left_text(record.seconds_left)}")
            self.line_at = now

    def evaluating(self, tokens: int, total: int) -> None:
        self._draw("validating", tokens, total, "")

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        self._remove("validating")
        self.console.print(
            f"step {step:,}: validation loss {evaluation.loss:.4f}, {evaluation.bits_per_byte:.4f} bits per byte"
            + (f" (first {evaluation.tokens:,} tokens)" if evaluation.partial else "")
        )
        if evaluation.accuracy:
            right = ", ".join(f"{name} {share:.0%}" for name, share in evaluation.accuracy.items())
            self.console.print(Text(f"  right: {right}", style="dim"))

    def sampled(self, step: int, samples: Sequence[Sample]) -> None:
        for sample in samples[:1]:
            text = f"{MARK}{sample.text} (expected: {sample.answer})"  # the prompt is always the same one
            if not sample.answer:
                text = f"{sample.opening}{MARK}{sample.text}"
            text = text.replace("\n", "⏎")[:SAMPLE_COLUMNS]
            text = "".join(c if c.isprintable() else " " for c in text)
            self.console.print(Text(f"  {text}", style="dim", no_wrap=True, overflow="ellipsis"))

    def notice(self, text: str) -> None:
        self.console.print(text)

    def ended(self) -> None:
        self._clear()

    def _draw(self, name: str, done: int, total: int | None, text: str, over_at: float | None = None) -> None:
        if name not in self.tasks:
            self.bars.start()
            self.tasks[name] = self.bars.add_task(name, total=total, text=text)
        self.bars.update(self.tasks[name], completed=done, total=total, text=text, over_at=over_at)

    def _remove(self, name: str) -> None:
        if name in self.tasks:
            self.bars.remove_task(self.tasks.pop(name))

    def _clear(self) -> None:
        self.bars.figures = ""
        for name in list(self.tasks):
            self._remove(name)
        self.bars.stop()


def left_text(seconds: float) -> str:
    """ "1:15 left"."""
    return f"{clock_text(max(seconds, 0.0))} left"


def figures_text(record: StepRecord) -> str:
    """ "loss 2.5000 · 1.250 bits per byte · lr 0.001 · gradient 0.75 · 999 tokens/s · MFU 41% · 3.0 GiB"."""
    parts = [
        f"loss {record.train_loss:.4f}",
        f"{record.train_bits_per_byte:.3f} bits per byte",
        f"lr {record.lr:.3g}",
        f"gradient {record.grad_norm:.3g}",
        f"{record.session.tokens_per_second:,.0f} tokens/s",
    ]
    if record.session.mfu is not None:
        parts.append(f"MFU {100 * record.session.mfu:.0f}%")
    if record.session.data_stall >= NOTABLE_STALL:
        parts.append(f"{100 * record.session.data_stall:.0f}% waiting for data")
    if record.peak_memory:
        parts.append(f"{record.peak_memory / 2**30:.1f} GiB")
    return " · ".join(parts)
