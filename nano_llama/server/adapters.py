"""Adapters under names of their own, `--adapter NAME=DIR`: requests choose by `model`, and run in one batch.

Not here: what an adapter is (vol3_engine/adapters.py). Tests: tests/server/test_api_adapters.py.
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
    """The ids under which clients may ask: the base model's, and each adapter's. Raises UserError for one twice."""
    names = [*base, *(adapter.name for adapter in adapters)]
    for adapter in adapters:
        if names.count(adapter.name) > 1:
            raise UserError(
                f"--adapter {adapter.name}={adapter.folder}: the name {adapter.name!r} is taken.",
                hint="Each adapter needs a name of its own, which is not the model's.",
            )
    return names
