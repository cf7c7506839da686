"""Single values of a GGUF's metadata, each checked for its type as it is asked for.

Tests: tests/formats/test_gguf_config.py.
"""

import numpy as np

from nano_llama.core.errors import ConfigError, FormatError
from nano_llama.formats.gguf_reader import GGUFFile


def integer(file: GGUFFile, key: str, default: int | None = None) -> int:
    value = file.metadata.get(key, default)
    if type(value) is not int:
        what = "is missing" if value is None else f"= {value!r:.80} is not one whole number"
        raise FormatError(f"{file.path}: the metadata {key} {what}.")
    return value


def integer_of_layers(file: GGUFFile, key: str, layers: int, default: int | None = None) -> int:
    """A number that a file may give once, or for each layer: an array of equal ones is that number."""
    value = file.metadata.get(key)
    if not isinstance(value, np.ndarray):
        return integer(file, key, default)
    if value.dtype.kind not in "iu" or len(value) != layers:
        raise FormatError(f"{file.path}: the metadata {key} is {len(value)} values, not one whole number per layer.")
    numbers = sorted({int(one) for one in value})
    if len(numbers) > 1:
        shown = ", ".join(map(str, numbers[:8]))
        raise ConfigError(f"{file.path}: {key} differs between layers ({shown}); that is not computed here.")
    return numbers[0]


def number(file: GGUFFile, key: str, default: float | None = None) -> float:
    """A float32 as the shortest decimal that means it: 1e-05, not 9.999999747378752e-06."""
    value = file.metadata.get(key, default)
    if type(value) not in (int, float):
        what = "is missing" if value is None else f"= {value!r:.80} is not a number"
        raise FormatError(f"{file.path}: the metadata {key} {what}.")
    return float(str(np.float32(value)))


def is_one_of(value: object, allowed: tuple[object, ...]) -> bool:
    """A file may hold an array where a number belongs, and NumPy has no truth for comparing one."""
    return isinstance(value, bool | int | float) and value in allowed


def token_id(file: GGUFFile, key: str, count: int) -> int | None:
    """The id of a special token; None where there is none, or it is not below `count` (tokenizer/gguf.py warns)."""
    value = file.metadata.get(key)
    return value if type(value) is int and 0 <= value < count else None
