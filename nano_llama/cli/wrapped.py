"""A growing text on the screen, its words wrapped at the screen's edge as they come; elsewhere it stays as it is.

Tests: tests/cli/test_wrapped.py.
"""

import shutil
from itertools import groupby

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from nano_llama.cli.common import printable

Run = tuple[str, str | None]  # a text, and its style in rich's words; None: as the terminal writes


class WrappedText:
    """Writes pieces of a text to a console. On a terminal the last word waits until it is known to be whole.

    A line break takes the place of the spaces before the word that does not fit; other spaces stay, so that code
    keeps its indentation. Control characters are made visible there.
    """

    def __init__(self, console: Console):
        self.console = console
        self.column = 0
        self.spaces: list[Run] = []  # not yet written, and the word after them; a word may change its style
        self.word: list[Run] = []

    def write(self, piece: str, style: str | None = None) -> None:
        """style: of rich, where the screen has colours."""
        if not self.console.is_terminal:
            self.console.file.write(piece)
            self.console.file.flush()
            return
        for character in printable(piece):
            if character == "\n":
                self._put_word()
                self._put([("\n", None)])
                self.column, self.spaces = 0, []
            elif character.isspace():
                self._put_word()
                self.spaces.append((character, style))
            else:
                self.word.append((character, style))
                if cell_len(character) == 2:  # Chinese and Japanese have no spaces: a line may end anywhere
                    self._put_word()
        self.console.file.flush()

    def show(self) -> None:
        """Write what waits, though the word may go on: the next piece takes its time."""
        if self.console.is_terminal:
            self._put_word()
            self.console.file.flush()

    def end(self) -> None:
        """The text is over: write what waits, and end the line."""
        if self.console.is_terminal:
            self._put_word()
        self.console.file.write("\n")
        self.console.file.flush()
        self.column, self.spaces = 0, []

    def _put_word(self) -> None:
        if not self.word:
            return
        width, length = self._width(), cell_len(_plain(self.word))
        if self.column and self.column + len(_plain(self.spaces)) + length > width:
            self._put([("\n", None), *self.word])
            self.column = length
        else:
            self._put([*self.spaces, *self.word])
            self.column += len(_plain(self.spaces)) + length
        while self.column > width:  # the terminal breaks a word that is longer than a line
            self.column -= width
        self.spaces, self.word = [], []

    def _put(self, runs: list[Run]) -> None:
        for style, same in groupby(runs, key=lambda run: run[1]):
            text = _plain(list(same))
            if style is None:
                self.console.file.write(text)
            else:
                self.console.print(Text(text, style), end="", soft_wrap=True)

    @staticmethod
    def _width() -> int:
        return max(1, shutil.get_terminal_size().columns)  # now: a window can be resized


def _plain(runs: list[Run]) -> str:
    return "".join(text for text, _ in runs)
