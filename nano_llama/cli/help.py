"""How `nano-llama VERB --help` looks: headings, an option a row, words wrapped in their own column; the same in a pipe.

Not here: the words; they are the verbs' docstrings. Tests: tests/cli/test_dispatch.py.
"""

import io
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import ConsoleOptions

LABELS = 34  # columns of the option's name at most; a longer one has a line to itself


def format_panel(console: Console, options: "ConsoleOptions", panel: "HelpPanel", hidden: Collection[str] = ()) -> None:
    """One heading with its options but the `hidden` ones: with these bound, what cyclopts calls a HelpFormatter."""
    entries = [entry for entry in panel.entries if not {*entry.names} & {*hidden}]
    if not entries:
        return
    console.print(Text(words(panel.title), style="bold cyan"))
    if about := words(panel.description):
        console.print(Padding(Text(about, style="dim"), (0, 0, 0, 2)))
    grid = Table.grid(padding=(0, 2, 0, 0))
    labels = [label(entry) for entry in entries]
    grid.add_column(width=min(LABELS, max(map(len, labels))) + 2)
    grid.add_column()
    for name, entry in zip(labels, entries, strict=True):
        grid.add_row(Text(f"  {name}", style="bold"), Text(explanation(entry)))
    console.print(grid)
    console.print()


def label(entry: "HelpEntry") -> str:
    """ "--lr FLOAT", "NAME", "--help, -h"."""
    names = [*entry.names, *entry.shorts] or [entry.positional_label or ""]
    return " ".join([", ".join(names), *([entry.metavar] if entry.metavar and entry.names else [])])


def explanation(entry: "HelpEntry") -> str:
    """Its words, then what may stand there, whether it must, and what holds without it."""
    text = words(entry.description)
    notes = [f"one of: {', '.join(entry.choices)}"] if entry.choices else []
    notes += ["required"] if entry.required else []
    notes += [f"default: {entry.default}"] if entry.default is not None else []
    return f"{text} [{'; '.join(notes)}]" if notes else text


def words(renderable: Any) -> str:
    """The plain text of what cyclopts hands over, its line breaks forgotten."""
    if not renderable:
        return ""
    console = Console(file=io.StringIO(), width=10_000, color_system=None)
    with console.capture() as captured:
        console.print(renderable)
    return " ".join(captured.get().split())
