"""Reading what the user types: one line, a line continued by a backslash, or a block between triple quotes.

Uses readline where Python has it (arrow keys, history, editing a given line) and plain input() elsewhere, so it works
on a dumb terminal and through a pipe. Tests: tests/cli/test_lines.py.
"""

import re
import sys
from collections.abc import Callable
from types import ModuleType

from rich.console import Console
from rich.text import Text

QUOTES = '"""'


class LineReader:
    """Prompts on the terminal; through a pipe it only reads. `shown` False keeps stdout clean (--json).

    complete: what Tab offers, for the line so far and its last word; may be set at any time.
    """

    def __init__(self, console: Console, shown: bool = True):
        self.console = console
        self.interactive = sys.stdin.isatty()
        self.shown = shown and sys.stdout.isatty()
        self.readline = _readline() if self.interactive and self.shown else None
        self.complete: Callable[[str, str], list[str]] = lambda line, word: []
        if self.readline is not None:
            self.readline.set_completer_delims(" ")
            self.readline.set_completer(self._completion)
            editline = "libedit" in (self.readline.__doc__ or "")  # macOS
            self.readline.parse_and_bind("bind ^I rl_complete" if editline else "tab: complete")

    def message(self, prompt: str, more: str, before: str = "", style: str | None = None) -> str:
        """A whole message of one or more lines. Raises EOFError at the end of input.

        before: text to edit. style: the prompt's, of rich, where the terminal has colours.

        >>> # first line \\        the backslash continues the message on the next line
        >>> # three quotes begin a block, which three quotes end
        """
        text = self.line(self._styled(prompt, style), before)
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

    def _styled(self, prompt: str, style: str | None) -> str:
        """The prompt with the terminal's codes, marked for readline as taking no room on the line."""
        if style is None or not self.interactive or not self.shown:
            return prompt
        with self.console.capture() as captured:
            self.console.print(Text(prompt, style), end="")
        marked = r"\001\1\002" if self.readline is not None else r"\1"
        return re.sub(r"((?:\x1b\[[\d;]*m)+)", marked, captured.get())

    def _completion(self, word: str, number: int) -> str | None:
        """Readline asks for the completions one by one, until there is none."""
        assert self.readline is not None, "readline asks"
        found = self.complete(self.readline.get_line_buffer(), word)
        return found[number] if number < len(found) else None

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
