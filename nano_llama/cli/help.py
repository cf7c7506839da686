"""How `nano-llama COMMAND --help` looks: headings, one option per row, text wrapped in its own column, also in a pipe.

The text itself is in the commands' docstrings. Tests: tests/cli/test_dispatch.py.
"""

import io
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import ConsoleOptions

LABEL_WIDTH = 34  # columns of an option's name at most; a longer one is wrapped


def format_panel(console: Console, options: "ConsoleOptions", panel: "HelpPanel", hidden: Collection[str] = ()) -> None:
    """A heading and its options, without the `hidden` ones. With `hidden` bound it is a HelpFormatter of cyclopts."""
    entries = [entry for entry in panel.entries if not {*entry.names} & {*hidden}]
    if not entries:
        return
    with console.capture() as captured:
        console.print(Text(words(panel.title), style="bold cyan"))
        if about := words(panel.description):
            console.print(Padding(Text(about, style="dim"), (0, 0, 0, 2)))
        console.print(_grid(entries))
    for line in captured.get().splitlines():  # rich pads the last column with spaces
        print(line.rstrip(), file=console.file)
    print(file=console.file)


def _grid(entries: Sequence["HelpEntry"]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    labels = [label(entry) for entry in entries]
    grid.add_column(width=min(LABEL_WIDTH, max(map(len, labels))) + 2)
    grid.add_column()
    for name, entry in zip(labels, entries, strict=True):
        grid.add_row(Text(f"  {name}", style="bold"), Text(explanation(entry)))
    return grid


def label(entry: "HelpEntry") -> str:
    """ "--lr FLOAT", "NAME", "MODEL, --model", "--help, -h"; a boolean option in the form that changes its default."""
    names = [*(boolean_names(entry) if is_boolean(entry) else entry.names), *entry.shorts]
    if entry.positional_label:
        return ", ".join([entry.positional_label, *names])
    return " ".join([", ".join(names), *([entry.metavar] if entry.metavar else [])])


def explanation(entry: "HelpEntry") -> str:
    """The description, then the choices, whether it is required, and the default."""
    text = words(entry.description)
    notes = [f"one of: {', '.join(entry.choices)}"] if entry.choices else []
    notes += ["required"] if entry.required else []
    notes += [f"default: {entry.default}"] if entry.default is not None and not is_boolean(entry) else []
    return f"{text} [{'; '.join(notes)}]" if notes else text


def boolean_names(entry: "HelpEntry") -> tuple[str, ...]:
    """--flag where the default is off, --no-flag where it is on, --[no-]flag where there is none."""
    if entry.default is None:
        return tuple(name.replace("--", "--[no-]", 1) for name in entry.positive_names)
    return entry.negative_names if entry.default == "True" else entry.positive_names


def is_boolean(entry: "HelpEntry") -> bool:
    """Only boolean options have a `--no-` form."""
    return bool(entry.negative_names)


def words(renderable: Any) -> str:
    """What cyclopts hands over as plain text on one line."""
    if not renderable:
        return ""
    console = Console(file=io.StringIO(), width=10_000, color_system=None)
    with console.capture() as captured:
        console.print(renderable)
    return " ".join(captured.get().split())
