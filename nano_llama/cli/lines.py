"""Reading what the user types: one line, a line continued by a backslash, or a block between triple quotes.

Uses readline where Python has it (arrow keys, history, editing a given line) and plain input() elsewhere, so it works
on a dumb terminal and through a pipe. Tests: tests/cli/test_lines.py.
"""

import sys
from types import ModuleType

QUOTES = '"""'


class LineReader:
    """Prompts on the terminal; through a pipe it only reads. `shown` False keeps stdout clean (--json)."""

    def __init__(self, shown: bool = True):
        self.interactive = sys.stdin.isatty()
        self.shown = shown and sys.stdout.isatty()
        self.readline = _readline() if self.interactive and self.shown else None

    def message(self, prompt: str, more: str, before: str = "") -> str:
        """A whole message of one or more lines. `before`: text to edit. Raises EOFError at the end of input.

        >>> # first line \\        the backslash continues the message on the next line
        >>> # three quotes begin a block, which three quotes end
        """
        text = self.line(prompt, before)
        if text.lstrip().startswith(QUOTES):
            text = text.lstrip().removeprefix(QUOTES)
            while not text.rstrip().endswith(QUOTES):
                text += "\n" + self.line(more)
            return text.rstrip().removesuffix(QUOTES).strip("\n")
        while text.endswith("\\"):
            text = text[:-1] + "\n" + self.line(more)
        return text

    def line(self, prompt: str, before: str = "") -> str:
        """One line, without its newline. With readline it starts with `before`, ready to be edited."""
        if self.readline is None:
            if self.interactive:
                print(prompt, end="", file=sys.stdout if self.shown else sys.stderr, flush=True)
            return input()
        if before:
            self.readline.set_startup_hook(lambda: self.readline.insert_text(before))
        try:
            return input(prompt)
        finally:
            self.readline.set_startup_hook(None)

    @property
    def can_edit(self) -> bool:
        """Whether `before` appears in the line; otherwise the user has to type it again."""
        return self.readline is not None


def _readline() -> ModuleType | None:
    try:
        import readline
    except ImportError:  # Windows
        return None
    return readline
