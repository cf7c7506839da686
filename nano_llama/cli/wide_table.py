"""A table whose words and numbers stay whole on a narrow screen: the columns that do not fit follow below the others.

Tests: tests/cli/test_wide_table.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

GAP = 2  # spaces between two columns
SHORT = 12  # a cell of no more than these characters is never wrapped


@dataclass
class WideTable:
    """What rich prints as one table, or as several, each of which begins with the column that names the rows."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[bool]  # of each column: aligned right
    title: Text | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        columns = [(name, [row[index] for row in self.rows]) for index, name in enumerate(self.header)]
        needed = [max(1, longest(name.split()), longest(map(least, cells))) for name, cells in columns]
        wanted = [longest([line for cell in (name, *cells) for line in cell.splitlines()]) for name, cells in columns]
        names = next((index for index, (_, cells) in enumerate(columns) if all(cells)), 0)  # marks may stand before
        for number, part in enumerate(parts(needed, options.max_width, keys=names + 1)):
            if number:
                yield ""
            grid = Table(
                title=None if number else self.title,
                title_justify="left", box=None, pad_edge=False, header_style="cyan",
            )  # fmt: skip
            shares = widths([needed[i] for i in part], [wanted[i] for i in part], options.max_width)
            for index, width in zip(part, shares, strict=True):
                numeric = self.numeric[index]
                grid.add_column(
                    self.header[index], justify="right" if numeric else "left", width=width, overflow="fold"
                )
            for row in self.rows:
                grid.add_row(*(row[index] for index in part))
            yield grid


def least(cell: str) -> str:
    """What must stay on one line: a figure with its unit, such as "46.8 s"; of a longer text its longest word."""
    return cell if cell_len(cell) <= SHORT else max(cell.split(), key=cell_len, default="")


def longest(texts: Iterable[str]) -> int:
    return max(map(cell_len, texts), default=0)


def parts(needed: Sequence[int], room: int, keys: int) -> list[list[int]]:
    """Which columns stand side by side: each part begins with the first `keys`, and none is empty beyond them."""
    found = [list(range(keys))]
    for index in range(keys, len(needed)):
        used = sum(needed[i] + GAP for i in found[-1])
        if used + needed[index] > room and len(found[-1]) > keys:
            found.append(list(range(keys)))
        found[-1].append(index)
    return found


def widths(needed: Sequence[int], wanted: Sequence[int], room: int) -> list[int]:
    """Of each column: its longest word, and a share of the room that is left until its longest line fits.

    Where not even the longest words fit into the room, the widest columns give way, and their words are broken.
    """
    found = list(needed)
    spare = room - GAP * (len(found) - 1) - sum(found)
    while spare > 0 and (narrow := [i for i, width in enumerate(found) if width < wanted[i]]):
        found[narrow[spare % len(narrow)]] += 1
        spare -= 1
    for _ in range(-spare):
        found[found.index(max(found))] -= 1
    return [max(1, width) for width in found]
