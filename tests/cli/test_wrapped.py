"""Words at the screen's edge, piece by piece: compared with the standard library's wrapping of the whole text."""

import io
import textwrap
from itertools import cycle

import pytest
from rich.console import Console

from nano_llama.cli.wrapped import WrappedText

TEXT = "the quick brown fox, jumps over an extraordinarily lazy dog and sleeps"


def shown(*pieces, width=20, terminal=True, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None)
    text = WrappedText(console)
    for piece in pieces:
        text.write(*(piece if isinstance(piece, tuple) else (piece,)))
    text.end()
    return console.file.getvalue()


@pytest.mark.parametrize("size", [1, 3, 7, 200])
@pytest.mark.parametrize("width", [17, 20, 31, 200])
def test_any_pieces_wrap_as_the_whole_text(size, width, monkeypatch):
    pieces = [TEXT[at : at + size] for at in range(0, len(TEXT), size)]
    expected = textwrap.fill(TEXT, width, break_on_hyphens=False) + "\n"
    assert shown(*pieces, width=width, monkeypatch=monkeypatch) == expected
    styled = [(piece, style) for piece, style in zip(pieces, cycle(["bold", None, "dim"]))]  # amid words
    assert shown(*styled, width=width, monkeypatch=monkeypatch) == expected


def test_what_waits_can_be_shown_before_the_word_is_whole(monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, width=20, color_system=None)
    text = WrappedText(console)
    text.write("Once upon a ti", "bold")
    assert console.file.getvalue() == "Once upon a "[:-1]
    text.show()
    text.write("me")
    assert console.file.getvalue() == "Once upon a ti"


def test_elsewhere_the_text_stays_as_it_is(monkeypatch):
    assert shown(TEXT, "\x1b", terminal=False, monkeypatch=monkeypatch) == TEXT + "\x1b\n"


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        (["def f(x):\n", "    return ", "x\n"], ["def f(x):", "    return x", ""]),
        (["a\n\nb"], ["a", "", "b"]),
        (["x" * 25, " y"], ["x" * 25 + " y"]),  # the terminal breaks the long word; 5 columns and " y" are its last
        (["春眠不覚暁処処聞啼鳥夜来"], ["春眠不覚暁処処聞啼鳥", "夜来"]),  # two columns each
        (["bell \x07"], ["bell \\x07"]),
        ([("Once upon", "bold"), " a time there was"], ["Once upon a time", "there was"]),
    ],
)
def test_code_long_words_wide_characters_and_controls(pieces, lines, monkeypatch):
    assert shown(*pieces, monkeypatch=monkeypatch).split("\n")[:-1] == lines
