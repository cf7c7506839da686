"""The settings of a run as its train.json holds them: of training, or of fine-tuning.

Tests: tests/training/test_saved_settings.py.
"""

from pathlib import Path

from nano_llama.core import files
from nano_llama.training.finetune.settings import FinetuneSettings
from nano_llama.training.settings import TrainSettings


def load_settings(path: str | Path) -> TrainSettings:
    """Raises UserError or FormatError, naming the file."""
    values = files.read_json(path, what="file of training settings")
    finetuning = isinstance(values, dict) and "method" in values
    return FinetuneSettings.load(path) if finetuning else TrainSettings.load(path)
