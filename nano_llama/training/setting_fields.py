"""Fields of settings: each has a section, a default, one line that explains it, and a range that is checked.

settings.py declares the settings of training with them; the command line is made from them (cli/train_options.py).
Tests: tests/training/test_train_settings.py.
"""

import dataclasses
import math
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

from nano_llama.core.errors import UserError

WORDS: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class Section:
    """A heading with what to know about its settings."""

    title: str
    about: str = ""

    def setting(
        self, default: Any, doc: str, *, least: float | None = None, above: float | None = None,
        most: float | None = None, choices: tuple[str, ...] | None = None,
    ) -> Any:  # fmt: skip
        """A field with its one-line explanation and its range (`least` and `most` included, `above` excluded)."""
        limits = {"least": least, "above": above, "most": most, "choices": choices}
        return dataclasses.field(default=default, metadata={"section": self, "doc": doc, **limits})


def sections(cls: Any) -> dict[Section, list[str]]:
    """The sections of a dataclass of such fields, with the names of their settings, in order."""
    found: dict[Section, list[str]] = {}
    for field in dataclasses.fields(cls):
        found.setdefault(field.metadata["section"], []).append(field.name)
    return found


def kind(cls: Any, name: str) -> tuple[type, bool]:
    """The type of a setting, and whether it may be None."""
    hint = _hints(cls)[name]
    if isinstance(hint, UnionType):
        return next(part for part in get_args(hint) if part is not NoneType), True
    return hint, False


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def parsed(cls: Any, name: str, text: str) -> Any:
    """The value that `text` stands for. Raises ValueError, saying what was expected, if it stands for none."""
    wanted, optional = kind(cls, name)
    if optional and text.lower() in ("none", "null"):
        return None
    try:
        return {"true": True, "false": False}[text.lower()] if wanted is bool else wanted(text)
    except (ValueError, KeyError):
        raise ValueError(WORDS[wanted]) from None


def check_fields(settings: Any) -> None:
    """Check every field, and convert whole numbers to floats where these are wanted. Raises UserError."""
    cls = type(settings)
    for field in dataclasses.fields(settings):
        value = _checked(field, *kind(cls, field.name), getattr(settings, field.name))
        object.__setattr__(settings, field.name, value)


def _checked(field: dataclasses.Field, kind: type, optional: bool, value: Any) -> Any:
    if value is None and optional:
        return None
    limits = field.metadata
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1e300 else math.inf
    wanted = WORDS[kind]
    good = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if good and kind is float:
        good = math.isfinite(value)
    for word, limit, holds in (
        ("at least", limits["least"], lambda a, b: a >= b),
        ("above", limits["above"], lambda a, b: a > b),
        ("at most", limits["most"], lambda a, b: a <= b),
    ):
        if limit is not None:
            wanted += f"{' and' if ' a' in wanted[2:] else ''} {word} {limit:g}"
            good = good and holds(value, limit)
    if limits["choices"]:
        wanted, good = " or ".join(limits["choices"]), value in limits["choices"]
    if not good:
        raise UserError(f"{field.name} = {value!r} must be {wanted}.", hint=f"{field.name}: {limits['doc']}")
    return value
