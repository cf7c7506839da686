"""The options of `nano-llama train`: every setting of a run, and which of them its --help shows.

Tests: tests/cli/test_train_options.py.
"""

import dataclasses

from nano_llama.cli.setting_options import given, make_options
from nano_llama.training.picture_settings import IMAGES
from nano_llama.training.setting_fields import sections
from nano_llama.training.settings import RENAMED, TrainSettings

__all__ = ["FIRST", "REST", "TrainOptions", "given"]

# What `train --help` shows; --help-all shows the rest too.
FIRST = frozenset(
    {
        "data", "tokenizer", "model", "init_from", "max_minutes", "max_steps", "batch_size", "context", "optimizer",
        "lr", "engine", "device", "seed", "evaluations", "samples", "tensorboard",
    }
)  # fmt: skip
REST = frozenset(
    f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(TrainSettings) if field.name not in FIRST
)

ORDER = tuple(section for section in sections(TrainSettings) if section is not IMAGES)  # which comes last
OLD = {old: now for old, (now, _) in RENAMED.items()}
TrainOptions = make_options(TrainSettings, "TrainOptions", first=ORDER, old=OLD)
