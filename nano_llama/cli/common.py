"""What every command shares: the options --json, --quiet and --debug, and the screen it writes to.

The result goes to stdout, progress and remarks to stderr, so that a pipe gets the result alone. Rich prints plain
text where the output is not a terminal or NO_COLOR is set. Tests: tests/cli/test_common.py.
"""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from nano_llama.cli.exits import visible
from nano_llama.cli.wide_table import WideTable

OUTPUT = Group("Output", sort_key=99)


def whole_number(type_: Any, tokens: Sequence[Any]) -> int:
    """A strict integer: cyclopts itself would take 1.5 for 1."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f'"{text}" is not a whole number.') from None


def path_with_a_name(type_: Any, tokens: Sequence[Any]) -> Path:
    """A path that is not empty: Path("") is the current folder, which an unset shell variable does not mean."""
    if not tokens[0].value:
        raise ValueError("the path is empty.")
    return Path(tokens[0].value)


Whole = Annotated[int, Parameter(converter=whole_number)]
Count = Annotated[int, Parameter(converter=whole_number, validator=Number(gte=1))]
NotNegative = Annotated[int, Parameter(converter=whole_number, validator=Number(gte=0))]
PictureFormat = Literal["png", "svg"]
Positive = Annotated[float, Parameter(validator=Number(gt=0, lt=math.inf))]


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, kw_only=True)
class Output:
    """The options of every command."""

    json: bool = False
    "Print the result as one JSON object on stdout (errors too)."
    quiet: bool = False
    "Print the result only, no progress and no remarks."
    debug: bool = False
    "Show Python's traceback when something fails."


class Screen:
    """Where a command writes: `say` for remarks, `result` for what was asked."""

    def __init__(self, output: Output | None = None):
        output = output or Output()
        self.json, self.quiet = output.json, output.quiet
        self.out, self.err = _console(sys.stdout), _console(sys.stderr)

    def say(self, text: str = "", style: str | None = None, whole_lines: bool = False) -> None:
        """A remark, on stderr; silent with --quiet. whole_lines: not wrapped, so that a command can be copied."""
        if not self.quiet:
            self.err.print(visible(text), style=style, soft_wrap=whole_lines)

    def say_piece(self, text: str, style: str | None = None) -> None:
        """A piece of a line that is still growing, printed at once, without a newline and not wrapped."""
        if not self.quiet:
            self.err.print(text, style=style, end="", soft_wrap=True)
            self.err.file.flush()

    def result(self, data: Mapping[str, Any], *shown: RenderableType) -> None:
        """The answer, on stdout: with --json `data` as one line, else what is `shown`."""
        if self.json:
            print(json.dumps(jsonable(data)))
            return
        for item in shown:
            self._print(printable(item) if isinstance(item, str) else item)

    def _print(self, item: RenderableType) -> None:
        if self.out.is_terminal:
            self.out.print(item)
            return
        with self.out.capture() as captured:  # a table pads its lines with spaces; a pipe gets none
            self.out.print(item)
        for line in captured.get().splitlines():
            print(line.rstrip())


def _console(stream: Any) -> Console:
    """Markup is off: a path or a model's text may hold brackets. Lines in a pipe are not wrapped at 80 columns."""
    console = Console(file=stream, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console = Console(file=stream, markup=False, emoji=False, highlight=False, width=max(console.width, 160))
    return console


def has_colours(console: Console) -> bool:
    """Whether colours are seen there: it is a terminal that has them, and NO_COLOR is not set."""
    return console.color_system is not None and not console.no_color


def _title(title: str | None) -> Text | None:
    """A title on one line: a plain string would be wrapped to the width of the table below it."""
    return None if title is None else Text(title, style="bold", no_wrap=True, overflow="ignore")


def facts(rows: Mapping[str, Any], title: str | None = None) -> Table:
    """A two-column table of names and values, without those that are None."""
    grid = Table(title=_title(title), title_justify="left", show_header=False, box=None, pad_edge=False)
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        if value is not None:
            grid.add_row(printable(name), printable(value))
    return grid


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> WideTable:
    """A table with numbers aligned right and words aligned left."""
    rows = [list(row) for row in rows]
    numeric = [any(isinstance(row[index], int | float) for row in rows) for index in range(len(header))]
    return WideTable(header, [[printable(cell) for cell in row] for row in rows], numeric, _title(title))


def printable(value: Any) -> str:
    """A value as people read it, with control characters escaped."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return visible(str(value))


def jsonable(value: Any) -> Any:
    """A value that JSON can represent: paths as strings, NumPy's numbers as Python's, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # a NumPy or torch scalar
        return jsonable(value.item())
    return str(value)
