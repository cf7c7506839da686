"""Adapters under names of their own, `--adapter NAME=DIR`: the place where fine-tuned models will be served.

Until then one that is given is refused, by name. Tests: tests/server/test_api_models.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nano_llama.core.errors import UserError


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder, served under a name."""

    name: str
    folder: Path

    @classmethod
    def parse(cls, text: str) -> "Adapter":
        """NAME=DIR. Raises UserError for anything else."""
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise UserError(f"--adapter {text!r} is not NAME=DIR.", hint="For example  --adapter poet=runs/poet")
        return cls(name, Path(folder))


def served_names(base: Sequence[str], adapters: Sequence[Adapter]) -> list[str]:
    """The ids under which clients may ask: the base model's, and each adapter's. Raises UserError."""
    for adapter in adapters:
        raise UserError(
            f"--adapter {adapter.name}={adapter.folder}: adapters come with fine-tuning, and are not served before.",
            hint="Leave --adapter out, and serve the base model.",
        )
    return [*base]
