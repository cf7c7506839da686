"""What every study returns. Tests: tests/studies/test_registry.py."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def points(*sentences: str) -> str:
    """A line for each, the answer first."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


@dataclass(frozen=True)
class Finding:
    """A few points, the figures behind them (plain numbers and lists), and the picture."""

    name: str
    text: str
    picture: Path
    figures: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "text": self.text, "picture": str(self.picture), "figures": self.figures}
