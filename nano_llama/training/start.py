"""Where a run starts: its data, and a model that is new, taken from elsewhere, or the run's own checkpoint.

Tests: tests/training/test_start.py.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import FormatError, UserError
from nano_llama.data.dataset import Dataset
from nano_llama.data.prepare import prepare
from nano_llama.data.sources import open_source
from nano_llama.formats import open_weights, read_config
from nano_llama.tokenizer import Tokenizer
from nano_llama.training.callback import Callback
from nano_llama.training.checkpoint import VERSION, Checkpoint, list_checkpoints, load_checkpoint
from nano_llama.training.settings import DEFAULT_TOKENIZER, TrainSettings


def prepare_dataset(settings: TrainSettings, run: Path | None, callback: Callback) -> Dataset:
    """`settings.data`, tokenized. run: the folder of the run that is resumed, whose own tokenizer is then used."""
    if not settings.data:
        raise UserError("No data to train on.", hint="Give --data: a file, a folder, stdlib, shakespeare, ...")
    tokenizer: str | Tokenizer = settings.tokenizer or DEFAULT_TOKENIZER
    if settings.init_from is not None:
        tokenizer = Tokenizer.from_pretrained(run if run is not None else settings.init_from)
    try:
        return prepare(settings.data, tokenizer, progress=callback.preparing)
    except BaseException:
        callback.ended()
        raise


def newest_checkpoint(folder: Path, needs: Collection[str], notice: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint in `folder`, to resume from; if it is damaged, the one before it, with a notice."""
    damage: FormatError | None = None
    for path in reversed(list_checkpoints(folder)):
        try:
            return load_checkpoint(path, needs)
        except FormatError as error:
            notice(f"{path.name} is damaged ({error.message}); the checkpoint before it is used.")
            damage = error
    if damage:
        raise damage
    notice("No checkpoint was saved yet: the run begins again from its first step.")
    return None


def past_progress(settings: TrainSettings, before: TrainSettings, state: Mapping[str, Any]) -> float:
    """The progress of a resumed run, 0 to 1: its settings may give it more steps or minutes than those `before`.

    A run that had ended by the clock and gets new minutes has all of them ahead, and what it took so far behind it.
    """
    if settings.max_steps is not None:
        return state["step"] / settings.max_steps
    assert settings.max_minutes is not None
    if state["progress"] >= 1.0 and settings.max_minutes != before.max_minutes:
        return state["elapsed_s"] / (state["elapsed_s"] + 60.0 * settings.max_minutes)
    return state["progress"]


def _learned_from(checkpoint: Checkpoint, dataset: Dataset, data: str) -> bool:
    """Whether the checkpoint's run read these very tokens."""
    saved = checkpoint.state.get("dataset")
    if saved == dataset.fingerprint:
        return True
    return checkpoint.state["version"] < VERSION and saved == dataset.old_fingerprint(
        open_source(data).fingerprint(rules=1)
    )


def starting_point(
    settings: TrainSettings, dataset: Dataset, checkpoint: Checkpoint | None
) -> tuple[LlamaConfig, Mapping[str, np.ndarray] | None]:
    """The model's config, and its weights if they are not random.

    Raises UserError if the checkpoint was trained on other data, or the data's tokens or context do not fit the model.
    """
    if checkpoint is not None:
        if not _learned_from(checkpoint, dataset, settings.data):
            raise UserError(
                f"The data {settings.data!r} has changed since {checkpoint.path} was saved.",
                hint="Restore it, or start a new run with --init-from.",
            )
        return read_config(checkpoint.path), checkpoint.weights
    if settings.init_from is None:
        tokenizer = dataset.tokenizer
        return settings.llama_config(dataset.vocab_size, tokenizer.bos_id, tokenizer.eos_id), None
    config = read_config(settings.init_from)
    if dataset.vocab_size > config.vocab_size:
        raise UserError(
            f"{settings.init_from} has {config.vocab_size:,} token ids; the data was made with {dataset.vocab_size:,}.",
            hint="The model's folder should hold its own tokenizer.",
        )
    if settings.context > config.max_position_embeddings:
        raise UserError(
            f"context = {settings.context} is longer than the {config.max_position_embeddings} positions"
            f" of {settings.init_from}.",
            hint=f"Use --context {config.max_position_embeddings} or less.",
        )
    return config, FiniteWeights(open_weights(settings.init_from), settings.init_from)


class FiniteWeights(Mapping[str, np.ndarray]):
    """The tensors of `weights`. Raises FormatError at the first use of one that holds NaN or infinity."""

    def __init__(self, weights: Mapping[str, np.ndarray], source: str):
        self.weights, self.source = weights, source

    def __getitem__(self, name: str) -> np.ndarray:
        array = self.weights[name]
        wrong = array.size - int(np.count_nonzero(np.isfinite(array)))
        if wrong:
            raise FormatError(
                f"{self.source}: {wrong:,} of the {array.size:,} weights in {name} are NaN or infinite.",
                hint="Use an earlier checkpoint of that run, or another model.",
            )
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)
