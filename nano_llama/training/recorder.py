"""The recorder: what a run writes for its reader, into metrics.jsonl, TensorBoard's files, samples.md and loss.png.

Each of these files has a module of its own: metrics.py, tensorboard.py, samples.py, plots.py.
Tests: tests/training/test_recorder.py.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from nano_llama.core.errors import EnvironmentFault
from nano_llama.data.openings import Opening
from nano_llama.training.budget import Clock
from nano_llama.training.metrics import MetricsWriter, read_metrics
from nano_llama.training.picture_answers import HEAD as PICTURES_HEAD
from nano_llama.training.picture_answers import PictureAnswers
from nano_llama.training.plots import plot_run
from nano_llama.training.record import StepRecord
from nano_llama.training.run_folder import RunFolder
from nano_llama.training.samples import HEAD, Generate, Sample, SampleFile, SampleLogger
from nano_llama.training.settings import TrainSettings
from nano_llama.training.tensorboard import TensorBoardWriter

DRAW_EVERY_SECONDS = 60.0
DRAWING_SHARE = 0.02  # at most, of the time goes into pictures: a long run's take longer, so they are drawn less often


class Shown(Protocol):
    """What the loop tells of itself, step by step."""

    def write(self, record: StepRecord) -> None: ...

    def sample(self, step: int, val_loss: float, generate: Generate, give_up: Callable[[], bool]) -> list[Sample]: ...

    def picture_is_due(self) -> bool: ...

    def draw(self, notice: Callable[[str], None]) -> None: ...

    def close(self) -> None: ...


class SamplesOnly:
    """On a rank that writes nothing: it draws the samples too, since all ranks compute them together."""

    def __init__(self, settings: TrainSettings, tokenizer: Any, openings: Sequence[Opening]):
        self.sampler = SampleLogger(settings, tokenizer, openings)

    def write(self, record: StepRecord) -> None:
        pass

    def sample(self, step: int, val_loss: float, generate: Generate, give_up: Callable[[], bool]) -> list[Sample]:
        return self.sampler.draw(generate, give_up) or []

    def picture_is_due(self) -> bool:
        return False

    def draw(self, notice: Callable[[str], None]) -> None:
        pass

    def close(self) -> None:
        pass


class Recorder:
    """The files of one session of a run. `keep_to`: the run resumes after that step; later entries are cut off.

    pictures: of a run that learns from them, what draws its samples.
    """

    def __init__(
        self,
        folder: RunFolder,
        settings: TrainSettings,
        tokenizer: Any,
        openings: Sequence[Opening],
        *,
        title: str,
        caption: str = "",
        keep_to: int | None,
        clock: Clock,
        pictures: PictureAnswers | None = None,
    ):
        self.folder, self.title, self.caption, self.clock = folder, title, caption, clock
        self.metrics = MetricsWriter(folder.metrics, keep_to)
        self.board = TensorBoardWriter(folder.tensorboard, keep_to) if settings.tensorboard else None
        wanted = bool(settings.evaluations and settings.samples and (openings or pictures))
        self.sampler = (pictures or SampleLogger(settings, tokenizer, openings)) if wanted else None
        self.sample_file = SampleFile(folder.samples, keep_to, PICTURES_HEAD if pictures else HEAD) if wanted else None
        if pictures and wanted:
            pictures.save_pictures(folder.sample_pictures)
        self.drawn_at, self.drawing_seconds = clock(), 0.0

    def write(self, record: StepRecord) -> None:
        """A line of metrics.jsonl, and the same for TensorBoard."""
        row = record.row()
        self.metrics.write(row)
        if self.board:
            self.board.write(row)

    def sample(self, step: int, val_loss: float, generate: Generate, give_up: Callable[[], bool]) -> list[Sample]:
        """Samples of the model as it is now; none if they are turned off, or once `give_up` returns True."""
        if self.sampler is None or self.sample_file is None:
            return []
        samples = self.sampler.draw(generate, give_up)
        if samples:
            self.sample_file.write(step, val_loss, samples)
        return samples or []

    def picture_is_due(self) -> bool:
        """Whether enough time has passed since the last picture."""
        wait = max(DRAW_EVERY_SECONDS, self.drawing_seconds / DRAWING_SHARE)
        return self.clock() - self.drawn_at >= wait

    def draw(self, notice: Callable[[str], None]) -> None:
        """Draw loss.png again. A picture that cannot be written is worth a notice, not the run."""
        begin = self.clock()
        try:
            plot_run(read_metrics(self.folder.metrics), self.folder.plot, self.title, self.caption)
        except EnvironmentFault as error:
            notice(error.message)
        self.drawn_at = self.clock()
        self.drawing_seconds = self.drawn_at - begin

    def close(self) -> None:
        self.metrics.close()
        if self.board:
            self.board.close()
