"""Lines, continued lines and blocks, as they come through a pipe."""

import io

import pytest
from rich.console import Console

from nano_llama.cli.lines import LineReader


@pytest.fixture
def read(monkeypatch):
    def from_text(text):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        reader, found = LineReader(Console()), []
        try:
            while True:
                found.append(reader.message("you> ", "...> "))
        except EOFError:
            return found

    return from_text


@pytest.mark.parametrize(
    ("typed", "messages"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\\\nb\\\nc\nd\n", ["a\nb\nc", "d"]),
        ('"""\na\n\nb\n"""\nc\n', ["a\n\nb", "c"]),
        ('"""a\nb"""\n', ["a\nb"]),
        ('"""a"""\n', ["a"]),
        ('  """\nx\\\n"""  \n', ["x\\"]),
        ("\n", [""]),
        ("last without newline", ["last without newline"]),
        ("ends in the middle\\\n", []),
    ],
)
def test_messages(read, typed, messages):
    assert read(typed) == messages


def test_a_pipe_sees_no_prompts(read, capsys):
    read("a\n")
    assert capsys.readouterr() == ("", "")
