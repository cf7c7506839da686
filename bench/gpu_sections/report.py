"""What a section gets: the place it runs in, and the report that it fills. Tests: tests/bench/test_gpu.py."""

import json
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from gpu_sections.table import SAME, Bar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class Skipped(Exception):
    """A section that this machine lacks something for; its message says what."""


def needs_triton() -> None:
    """A rehearsal without it skips; a card's machine has it."""
    if find_spec("triton") is None:
        raise Skipped("triton is not installed")


@dataclass(frozen=True)
class Place:
    """Where a section runs. rehearse: with tiny shapes on the CPU. scratch: a folder that is removed afterwards."""

    rehearse: bool
    scratch: Path
    shakespeare: Path | None
    end: float  # of its time, on time.monotonic's scale

    @property
    def device(self) -> "torch.device":
        import torch

        return torch.device("cpu" if self.rehearse else "cuda")

    def pick(self, card: T, tiny: T) -> T:
        """The value for a card, or for a rehearsal."""
        return tiny if self.rehearse else card

    def seconds_left(self) -> float:
        return self.end - time.monotonic()


@dataclass
class Report:
    """What a section has found. rows: what was measured, against bars; notes: more of it; errors: what could not be."""

    out: TextIO
    judge: bool  # whether bars are looked at: speeds of a rehearsal meet none
    facts: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def row(self, what: str, value: float, unit: str = "", bar: Bar | None = None, beside: str = "") -> None:
        """beside: other figures that belong to it, as text."""
        value = float(value)
        limits = {} if bar is None else {name: limit for name, limit in bar._asdict().items() if limit is not None}
        met = bar.met(value) if bar and self.judge else None
        self.rows.append({"what": what, "value": rounded(value), "unit": unit, "met": met, **limits, "beside": beside})
        self.send()

    def same(self, what: str, equal: bool, beside: str = "") -> None:
        """Something is equal, as it must be, or is not."""
        self.row(what, float(equal), "equal", SAME, beside)

    def note(self, name: str, value: Any) -> None:
        """More that was found: a number, a text, a list, or numbers by name."""
        if isinstance(value, dict):
            value = {key: rounded(one) if isinstance(one, float) else one for key, one in value.items()}
        self.notes[name] = rounded(value) if isinstance(value, float) else value
        self.send()

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """A part whose failure leaves the others standing: a kernel that is missing, a setting that is not known."""
        try:
            yield
        except Skipped:
            raise
        except Exception as error:
            traceback.print_exc()
            self.errors.append(f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            self.send()

    def send(self, **more: Any) -> None:
        told = {"rows": self.rows, "notes": self.notes, "errors": self.errors, **self.facts, **more}
        self.out.write(json.dumps(told) + "\n")
        self.out.flush()


def rounded(value: float) -> float | None:
    """Five digits; None for what is not a number, for which JSON has no word."""
    return float(f"{value:.5g}") if value == value and abs(value) != float("inf") else None
