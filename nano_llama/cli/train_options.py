"""TrainSettings as options of the command line: made from the settings themselves, so that neither can drift.

Here: which heading a setting stands under. Not here: what it means (training/settings.py has its doc and range).
Tests: tests/cli/test_train_options.py.
"""

import dataclasses
from typing import Annotated, Any, get_args, get_type_hints

from cyclopts import Group, Parameter

from nano_llama.cli.common import whole_number
from nano_llama.training.settings import TrainSettings

# Heading -> its help and its settings, in the order of `train --help`.
GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Text and model": (
        "What to learn, and the model that learns it: fresh (a named shape, any number changed) or given.",
        ("data", "tokenizer", "model", "init_from"),
    ),
    "Length of the run": (
        "Steps make a run repeatable bit for bit; minutes fit it into your time.",
        ("max_minutes", "max_steps", "stop_loss"),
    ),
    "Batch": (
        "One step learns from batch-size x context x accumulate tokens.",
        ("batch_size", "context", "accumulate", "attend_across"),
    ),
    "Update": (
        "The learning rate rises over the warmup, then falls.",
        ("optimizer", "lr", "schedule", "warmup", "decay", "final_lr", "weight_decay", "clip", "beta1", "beta2",
         "ema", "z_loss", "dropout"),
    ),
    "When something goes wrong": ("", ("on_nan", "on_spike")),
    "Computing": ("", ("engine", "device", "precision", "compile", "recompute", "data_workers", "num_threads", "seed")),
    "Reports and checkpoints": (
        "",
        ("log_every", "evaluations", "samples", "sample_tokens", "sample_prompt", "tensorboard", "checkpoint_minutes",
         "keep_checkpoints"),
    ),
    "Shape of a fresh model": (
        "In Hugging Face's names; by default those of --model.",
        ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size",
         "tie_word_embeddings", "rope_theta"),
    ),
}  # fmt: skip


def _options() -> type:
    """A dataclass with an optional field for every setting; None: not given."""
    settings = {field.name: field for field in dataclasses.fields(TrainSettings)}
    hints = get_type_hints(TrainSettings)
    fields: list[tuple[str, Any, Any]] = []
    for place, (heading, (text, names)) in enumerate(GROUPS.items()):
        group = Group(heading, help=text, sort_key=10 + place)
        for name in names:
            setting = settings[name]
            shown = False if setting.default in (None, "") else _fixed(str(setting.default))
            strict = whole_number if int in (hints[name], *get_args(hints[name])) else None
            parameter = Parameter(help=setting.metadata["doc"], group=group, show_default=shown, converter=strict)
            fields.append((name, Annotated[hints[name] | None, parameter], None))
    home = {"__module__": __name__}  # without it the class would count as one of Python's own
    made = dataclasses.make_dataclass("TrainOptions", fields, frozen=True, kw_only=True, namespace=home)
    made.__doc__ = "The settings that were given; None: not given."
    return Parameter(name="*")(made)


def _fixed(text: str) -> Any:
    return lambda _: text


# What `train --help` shows, in the order of GROUPS; --help-all shows the rest too.
FIRST = frozenset(
    {
        "data", "tokenizer", "model", "init_from", "max_minutes", "max_steps", "batch_size", "context", "optimizer",
        "lr", "engine", "device", "seed", "evaluations", "samples", "tensorboard",
    }
)  # fmt: skip
REST = frozenset(
    f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(TrainSettings) if field.name not in FIRST
)

TrainOptions = _options()


def given(options: Any) -> dict[str, Any]:
    """The settings that the command line names."""
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    return {name: value for name, value in values.items() if value is not None}
