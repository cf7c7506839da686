"""TrainSettings as options of the command line, made from the settings themselves: their sections, types and words.

Tests: tests/cli/test_train_options.py.
"""

import dataclasses
from typing import Annotated, Any, get_args, get_type_hints

from cyclopts import Group, Parameter

from nano_llama.cli.common import whole_number
from nano_llama.training.setting_fields import sections
from nano_llama.training.settings import RENAMED, TrainSettings


def _options() -> type:
    """A dataclass with an optional field for every setting, and for those of version 0.1; None: not given."""
    settings = {field.name: field for field in dataclasses.fields(TrainSettings)}
    hints = get_type_hints(TrainSettings)
    fields: list[tuple[str, Any, Any]] = []
    for place, (section, names) in enumerate(sections(TrainSettings).items()):
        group = Group(section.title, help=section.about, sort_key=10 + place)
        for name in names:
            setting = settings[name]
            shown = False if setting.default in (None, "") else _fixed(str(setting.default))
            strict = whole_number if int in (hints[name], *get_args(hints[name])) else None
            parameter = Parameter(help=setting.metadata["doc"], group=group, show_default=shown, converter=strict)
            fields.append((name, Annotated[hints[name] | None, parameter], None))
    for old, (name, _) in RENAMED.items():
        fields.append((old, Annotated[hints[name] | None, Parameter(show=False)], None))
    home = {"__module__": __name__}  # without it the class would count as one of Python's own
    made = dataclasses.make_dataclass("TrainOptions", fields, frozen=True, kw_only=True, namespace=home)
    made.__doc__ = "The settings that were given; None: not given."
    return Parameter(name="*")(made)


def _fixed(text: str) -> Any:
    return lambda _: text


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

TrainOptions = _options()


def given(options: Any) -> dict[str, Any]:
    """The settings that the command line gives."""
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    return {name: value for name, value in values.items() if value is not None}
