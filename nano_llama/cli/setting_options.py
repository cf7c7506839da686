"""Settings as options of the command line, made from the settings themselves: their sections, types and words.

train_options.py and finetune_options.py say which settings are which command's. Tests: tests/cli/test_train_options.py.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, get_args, get_type_hints

from cyclopts import Group, Parameter

from nano_llama.cli.common import whole_number
from nano_llama.core.errors import UserError
from nano_llama.training.setting_fields import Section, sections


def make_options(
    cls: type, name: str, *, first: Sequence[Section] = (), leave_out: Collection[str] = (),
    flags: Mapping[str, str] | None = None, old: Mapping[str, str] | None = None,
) -> type:  # fmt: skip
    """A dataclass with an optional field for every setting of `cls`; None: not given.

    first: the sections that come first in the help. flags: setting -> its flag, where that has another name. old: a
    setting's earlier name -> its name now; understood, not shown.
    """
    settings = {field.name: field for field in dataclasses.fields(cls)}
    hints = get_type_hints(cls)
    found = sections(cls)
    fields: list[tuple[str, Any, Any]] = []
    for place, section in enumerate([*first, *(section for section in found if section not in first)]):
        group = Group(section.title, help=section.about, sort_key=10 + place)
        for setting in (settings[name] for name in found[section] if name not in leave_out):
            shown = False if setting.default in (None, "") else _fixed(str(setting.default))
            parameter = Parameter(
                help=setting.metadata["doc"], group=group, show_default=shown, name=(flags or {}).get(setting.name),
                converter=whole_number if int in (hints[setting.name], *get_args(hints[setting.name])) else None,
            )  # fmt: skip
            fields.append((setting.name, Annotated[hints[setting.name] | None, parameter], None))
    for earlier, now in (old or {}).items():
        fields.append((earlier, Annotated[hints[now] | None, Parameter(show=False)], None))
    home = {"__module__": __name__}  # without it the class would count as one of Python's own
    made = dataclasses.make_dataclass(name, fields, frozen=True, kw_only=True, namespace=home)
    made.__doc__ = "The settings that were given; None: not given."
    return Parameter(name="*")(made)


def _fixed(text: str) -> Any:
    return lambda _: text


def given(options: Any, flags: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The settings that the command line gives; none where `options` is None. flags: as in make_options.

    Raises UserError for an empty text: as a path it would be the current folder.
    """
    if options is None:
        return {}
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    for name in (name for name, value in values.items() if value == ""):
        flag = (flags or {}).get(name) or f"--{name.replace('_', '-')}"
        raise UserError(f"{flag} is empty.", hint="Give it a value, or leave it out.")
    return {name: value for name, value in values.items() if value is not None}
