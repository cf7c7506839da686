"""How settings come together: the preset, the config file, the flags and the --set texts of a command, in layers.

Tests: tests/training/test_training_presets.py, test_train_settings.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nano_llama.core.errors import UserError
from nano_llama.data.builtin import NAMES as SOURCE_NAMES
from nano_llama.training.presets import training_preset
from nano_llama.training.setting_fields import parsed
from nano_llama.training.settings import RENAMED, TrainSettings, fields_of, known, merge, read_settings


def make_settings(
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> TrainSettings:
    """The settings of a command: defaults, then the preset, the config file, the flags, the --set texts; later wins.

    flags: name -> value, None where the flag was not given. A later layer removes what contradicts it (--max-minutes
    replaces a preset's max_steps, --init-from its shape and tokenizer). Raises UserError for an unknown name, an
    impossible value, or one setting given twice on the command line.
    """
    return TrainSettings(**merge(layers(preset, config, flags or {}, overrides)))


def layers(
    preset: str | None, config: str | Path | None, flags: Mapping[str, Any], overrides: Sequence[str],
    cls: type[TrainSettings] = TrainSettings,
) -> list[dict[str, Any]]:  # fmt: skip
    """What preset, config file and command line say, to be merged."""
    chosen = training_preset(preset) if preset else {}
    return [chosen, read_settings(config, cls) if config else {}, explicit(flags, overrides, cls)]


def explicit(
    flags: Mapping[str, Any], overrides: Sequence[str], cls: type[TrainSettings] = TrainSettings
) -> dict[str, Any]:
    """What the command line itself says: flags that were given, and --set texts, which need no flag of their own."""
    given = known({name: value for name, value in flags.items() if value is not None}, "flags", cls)
    for text in overrides:
        name, value = parse_setting(text, cls)
        if name in given:
            raise UserError(f"{name} is given twice: {given[name]!r} and {value!r}.", hint="Leave one of them out.")
        given[name] = value
    return {name: _absolute(name, value) for name, value in given.items()}


def parse_setting(text: str, cls: type[TrainSettings] = TrainSettings) -> tuple[str, Any]:
    """ "lr=3e-4" -> ("lr", 0.0003), by the type of the setting. Raises UserError for an unknown name or a bad value."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        raise UserError(f"--set {text!r} has no '='.", hint="Write  --set key=value, for example  --set lr=0.001")
    (now,) = known({name: None}, "--set", cls)
    try:
        found = parsed(cls, now, value)
    except ValueError as error:
        doc = fields_of(cls)[now].metadata["doc"]
        raise UserError(f"--set {text!r}: {value!r} is not {error}.", hint=f"{now}: {doc}") from None
    return now, RENAMED[name][1](found) if name in RENAMED else found


def _absolute(name: str, value: Any) -> Any:
    """A path as train.json should hold it, so that the run can be resumed from any working directory."""
    words = {"data": SOURCE_NAMES, "tokenizer": ("char",), "init_from": (), "held_out": (*SOURCE_NAMES, "none")}
    if name not in words or value in words[name] or not Path(value).expanduser().exists():
        return value
    return str(Path(value).expanduser().absolute())
