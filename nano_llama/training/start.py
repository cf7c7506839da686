"""Where a run starts: its data, and a model that is new, taken from elsewhere, or the run's own checkpoint.

Tests: tests/training/test_start.py.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.vision.config import ModelConfig, VisionLanguageConfig
from nano_llama.data.dataset import Dataset
from nano_llama.data.prepare import prepare
from nano_llama.data.sft.dataset import ExampleDataset, open_example_dataset
from nano_llama.data.sources import open_source
from nano_llama.data.vqa.dataset import PictureDataset
from nano_llama.formats import TensorMapping, open_weights, read_config
from nano_llama.formats.peft import read_adapter
from nano_llama.formats.vision_folder import open_vision_language
from nano_llama.tokenizer import Tokenizer
from nano_llama.training.callback import Callback
from nano_llama.training.checkpoint import (
    VERSION,
    Checkpoint,
    checkpoint_path,
    checkpoint_step,
    list_checkpoints,
    load_checkpoint,
)
from nano_llama.training.finetune.settings import FinetuneSettings
from nano_llama.training.model_files import AdapterFiles, ModelFiles, WholeModel
from nano_llama.training.picture_files import MergedVisionLanguageFiles, VisionLanguageFiles, open_with_factors
from nano_llama.training.pictures import picture_data, picture_start
from nano_llama.training.preflight import trained_shapes
from nano_llama.training.ranks import Ranks, of_first
from nano_llama.training.settings import DEFAULT_TOKENIZER, TrainSettings

NO_STEP = -1  # where no checkpoint is left
TrainingData = Dataset | ExampleDataset | PictureDataset


def prepare_dataset(settings: TrainSettings, run: Path | None, callback: Callback) -> TrainingData:
    """`settings.data`, tokenized. run: the folder of the run that is resumed, whose own tokenizer is then used."""
    if not settings.data:
        known = "a .jsonl or .txt file, or a folder with train.jsonl and val.jsonl"
        if not isinstance(settings, FinetuneSettings):
            known = "a file, a folder, stdlib, shakespeare, ..."
        raise UserError("No data to train on.", hint=f"Give --data: {known}")
    if settings.from_pictures:
        return picture_data(settings, run)
    tokenizer: str | Tokenizer = settings.tokenizer or DEFAULT_TOKENIZER
    if settings.init_from is not None:
        tokenizer = Tokenizer.from_pretrained(run if run is not None else settings.init_from)
    if isinstance(settings, FinetuneSettings):
        assert isinstance(tokenizer, Tokenizer), "the model that is fine-tuned brings its own"
        return open_example_dataset(
            settings.data, tokenizer, settings.context, leave_out_long=settings.leave_out_long,
            variables=settings.template_variables,
        )  # fmt: skip
    try:
        dataset = prepare(settings.data, tokenizer, progress=callback.preparing)
    except BaseException:
        callback.ended()
        raise
    wanted = tokenizer.removeprefix("bpe:") if isinstance(tokenizer, str) else ""
    if wanted.isdigit() and dataset.vocab_size < int(wanted):
        callback.notice(
            f"tokenizer: {dataset.vocab_size:,} ids, not {int(wanted):,}: the text has no more pairs to merge"
        )
    return dataset


def newest_checkpoint(
    folder: Path, needs: Collection[str], settings: TrainSettings, notice: Callable[[str], None], ranks: Ranks
) -> Checkpoint | None:
    """The newest checkpoint in `folder`, to resume from; if it is damaged, the one before it, with a notice.

    All ranks take the same one, of those that the first rank sees. One rank of each machine verifies it.
    """
    open_model: Callable[[Path], Mapping[str, np.ndarray]] = open_weights
    if settings.from_pictures:
        open_model = open_with_factors if settings.lora else lambda path: open_vision_language(path)[1]
    elif settings.lora is not None:
        base = read_config(_base(settings))
        open_model = lambda path: read_adapter(path, base).tensors  # noqa: E731
    damage: FormatError | None = None
    steps = [checkpoint_step(path) for path in list_checkpoints(folder)]
    while (step := int(of_first(ranks, steps.pop() if steps else NO_STEP))) != NO_STEP:
        path, checkpoint, found = checkpoint_path(folder, step), None, None
        try:
            checkpoint = load_checkpoint(path, needs, open_model, verify=ranks.first_of_machine)
        except FormatError as error:
            found = error
        if not any(ranks.gathered(found is not None)):
            return checkpoint
        damage = found or FormatError(f"{path}: damaged, as another process has found.")
        notice(f"{path.name} is damaged ({damage.message}); the checkpoint before it is used.")
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


@dataclass(frozen=True)
class Start:
    """What a run begins with. weights: None where they are drawn; adapter: of a checkpoint, where one is trained."""

    config: ModelConfig
    weights: Mapping[str, np.ndarray] | None
    adapter: Mapping[str, np.ndarray] | None = None


def starting_point(settings: TrainSettings, dataset: TrainingData, checkpoint: Checkpoint | None) -> Start:
    """The model's config, and its weights if they are not random.

    Raises UserError if the checkpoint was trained on other data, or the data's tokens or context do not fit the model.
    """
    if checkpoint is not None and not _learned_from(checkpoint, dataset, settings.data):
        raise UserError(
            f"The data {settings.data!r} has changed since {checkpoint.path} was saved.",
            hint="Restore it, or start a new run with --init-from.",
        )
    if isinstance(dataset, PictureDataset):
        return Start(*picture_start(settings, dataset, checkpoint.path if checkpoint else None))
    if settings.lora is not None:
        return replace(_from_model(settings, dataset), adapter=checkpoint.weights if checkpoint else None)
    if checkpoint is not None:
        return Start(read_config(checkpoint.path), checkpoint.weights)
    if settings.init_from is not None:
        return _from_model(settings, dataset)
    tokenizer = dataset.tokenizer
    return Start(settings.llama_config(dataset.vocab_size, tokenizer.bos_id, tokenizer.eos_id), None)


def _learned_from(checkpoint: Checkpoint, dataset: TrainingData, data: str) -> bool:
    """Whether the checkpoint's run read these very tokens."""
    saved = checkpoint.state.get("dataset")
    if saved == dataset.fingerprint or checkpoint.state["version"] == VERSION or not isinstance(dataset, Dataset):
        return saved == dataset.fingerprint
    return saved == dataset.old_fingerprint(open_source(data).fingerprint(rules=1))


def _from_model(settings: TrainSettings, dataset: TrainingData) -> Start:
    """The model of init_from, if the data and the context suit it."""
    path = _base(settings)
    config = read_config(path)
    if dataset.vocab_size > config.vocab_size:
        raise UserError(
            f"{path} has {config.vocab_size:,} token ids; the data was made with {dataset.vocab_size:,}.",
            hint="The model's folder should hold its own tokenizer.",
        )
    if settings.context > config.max_position_embeddings:
        raise UserError(
            f"context = {settings.context} is longer than the {config.max_position_embeddings} positions of {path}.",
            hint=f"Use --context {config.max_position_embeddings} or less.",
        )
    return Start(config, FiniteWeights(open_weights(path), path))


def _base(settings: TrainSettings) -> str:
    assert settings.init_from is not None, "this run begins with a model"
    return settings.init_from


def model_files(settings: TrainSettings, start: Start, tokenizer: Tokenizer) -> ModelFiles:
    """What is saved of the model: all of it, or the adapter that is trained."""
    if isinstance(start.config, VisionLanguageConfig):
        assert start.weights is not None, "a run on pictures begins with a model"
        trained = trained_shapes(start.config, settings)
        frozen = {name: start.weights[name] for name in start.weights if name not in trained}
        if settings.lora is not None:
            return MergedVisionLanguageFiles(start.config, tokenizer, frozen, settings.lora)
        return VisionLanguageFiles(start.config, tokenizer, frozen)
    if settings.lora is not None:
        return AdapterFiles(settings.lora, _base(settings), tokenizer)
    return WholeModel(start.config, tokenizer)


class FiniteWeights(Mapping[str, np.ndarray]):
    """The tensors of `weights`. Raises FormatError at the first use of one that holds NaN or infinity."""

    def __init__(self, weights: TensorMapping, source: str):
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
