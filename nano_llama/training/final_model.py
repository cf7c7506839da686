"""The model of a run, written into its folder when it ends or is stopped: of its last step, or of its best checkpoint.

A run that goes on too long learns its training text by heart, and its validation loss rises again. Where the last
evaluation found a higher loss than an earlier one, the model is that of the checkpoint with the lowest, which is kept
(checkpoint.py). Evaluations of a part of the split do not count, and of equal losses the first is the lowest. A resumed
run goes on from its last checkpoint all the same. Tests: tests/training/test_final_model.py.
"""

from nano_llama.core.errors import FormatError, UserError
from nano_llama.formats.mapping import as_mapping
from nano_llama.training.backend import Backend, Notice
from nano_llama.training.checkpoint import checkpoint_path, copy_model
from nano_llama.training.checkpoints import Checkpoints
from nano_llama.training.model_files import ModelFiles
from nano_llama.training.ranks import Ranks, of_first
from nano_llama.training.run_folder import RunFolder
from nano_llama.training.state import Best, RunState


class FinalModel:
    """Writes the model of one run; every rank calls its methods."""

    def __init__(
        self, folder: RunFolder, model: ModelFiles, checkpoints: Checkpoints, backend: Backend, ranks: Ranks,
        notice: Notice,
    ):  # fmt: skip
        self.folder, self.model, self.checkpoints = folder, model, checkpoints
        self.backend, self.ranks, self.notice = backend, ranks, notice

    def save(self, state: RunState) -> Best | None:
        """Write the model -> the evaluation that chose it; None: it is that of the last step."""
        best = state.best if state.past_best else None
        if best is not None and not self._copied(best):
            best = None
        if best is None:
            with as_mapping(self.backend.weights()) as weights:
                self.model.put(self.folder.path, weights)
            return None
        found = "" if state.val_loss is None else f", and is {state.val_loss:.4f} at step {state.step:,}"
        self.notice(
            f"The validation loss was lowest at step {best.step:,} ({best.loss:.4f}){found}: the run's model is that"
            f" of step {best.step:,}."
        )
        return best

    def load(self) -> None:
        """Let the backend hold the model that was written. No update follows."""
        self.backend.load_weights(self.model.open(self.folder.path))

    def _copied(self, best: Best) -> bool:
        """Whether the best checkpoint could be read."""
        self.checkpoints.wait()  # it may be the one that is being written
        damage = ""
        if self.ranks.rank == 0:
            try:
                copy_model(checkpoint_path(self.folder.checkpoints, best.step), self.folder.path)
            except (UserError, FormatError) as error:
                damage = error.message
        if of_first(self.ranks, float(bool(damage))):
            self.notice(f"The best checkpoint cannot be read ({damage}): the run's model is that of its last step.")
            return False
        return True
