"""The options of `nano-llama finetune`: the settings of fine-tuning, but for those that the model brings with it.

Tests: tests/cli/test_finetune_options.py.
"""

import dataclasses

from nano_llama.cli.setting_options import make_options
from nano_llama.training.finetune.settings import METHOD, FinetuneSettings
from nano_llama.training.picture_settings import IMAGE_NAMES
from nano_llama.training.settings import DATA, LENGTH, OWNED_BY_CHECKPOINT

# The model's own; those of images; and document_mask, which packing decides.
LEFT_OUT = frozenset({*OWNED_BY_CHECKPOINT, *IMAGE_NAMES, "document_mask"})
FLAGS = {"init_from": "--model"}

# What `finetune --help` shows; --help-all shows the rest too.
FIRST = frozenset(
    {
        "init_from", "data", "leave_out_long", "method", "adapter", "rank", "alpha", "base_quantization", "epochs",
        "max_minutes", "max_steps", "batch_size", "context", "lr", "engine", "device", "seed", "samples",
        "activation_checkpointing",
    }
)  # fmt: skip
REST = frozenset(
    FLAGS.get(field.name, f"--{field.name.replace('_', '-')}")
    for field in dataclasses.fields(FinetuneSettings)
    if field.name not in FIRST | LEFT_OUT
)

FinetuneOptions = make_options(
    FinetuneSettings, "FinetuneOptions", first=(DATA, METHOD, LENGTH), leave_out=LEFT_OUT, flags=FLAGS
)
