"""gpu_CARD.json: every section's last line on that card, written after each of them. And lines on the screen."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gpu_sections.driver import FACTS
from gpu_sections.table import SECTIONS, passed
from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.files import write_json

ORDER = {section.name: number for number, section in enumerate(SECTIONS)}


def short_name(card: str) -> str:
    """ "NVIDIA H100 80GB HBM3" -> "h100"."""
    words = re.findall(r"[a-z0-9]+", card.lower())
    return next((word for word in words if word not in ("nvidia", "geforce", "rtx", "tesla")), "unknown")


def print_line(line: dict[str, Any]) -> None:
    """One line of JSON, at once: nothing is lost where the command is killed."""
    print(json.dumps(line), flush=True)


class Results:
    """The file of one card, in `folder`; sections that it holds from earlier calls stay. A rehearsal begins anew."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.card: str | None = None
        self.began: set[Path] = set()

    def add(self, line: dict[str, Any]) -> Path | None:
        """Into its card's file, which is read back; a section that died before it named its card: the last one's."""
        self.card = line["card"] or self.card
        if self.card is None:
            return None
        rehearsal = self.card == "CPU"
        path = self.folder / f"gpu_{'rehearsal' if rehearsal else short_name(self.card)}.json"
        fresh = rehearsal and path not in self.began
        result = {"sections": {}} if fresh or not path.exists() else json.loads(path.read_text())
        self.began.add(path)
        sections = result["sections"] | {line["section"]: line}
        result = {
            **{fact: line[fact] or result.get(fact) for fact in FACTS}, "card": self.card, "rehearsal": rehearsal,
            "sections": dict(sorted(sections.items(), key=lambda item: ORDER.get(item[0], len(ORDER)))),
        }  # fmt: skip
        result["passed"] = passed(result)
        write_json(path, result)
        assert json.loads(path.read_text()) == result, f"{path} reads back as something else"
        return path


def lines_in(path: Path) -> Iterator[dict[str, Any]]:
    """The sections of a file of results, or of the output of a command, whose other lines are passed over."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    try:
        yield from json.loads(text)["sections"].values()
        return
    except (ValueError, KeyError, TypeError):
        pass
    for row in text.splitlines():
        if row.startswith('{"section"'):
            try:
                yield json.loads(row)
            except ValueError as error:
                raise FormatError(f"{path}: a section's line is cut off ({row[:60]} ...).") from error


def collect(files: Iterable[Path], folder: Path) -> str:
    """Join them; of a section that several hold, the last that ran. -> what became of it."""
    results, written = Results(folder), set()
    for path in files:
        for line in lines_in(path):
            if line["status"] != "skipped" and (place := results.add(line)):
                written.add(place)
    if not written:
        raise UserError(f"No section that ran on a card in {', '.join(map(str, files))}.")
    return "\n".join(f"{path}: passed = {json.loads(path.read_text())['passed']}" for path in sorted(written))
