"""What reaches the screen: results on stdout, remarks on stderr, no control characters."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from nano_llama.cli.common import Output, Screen, facts, jsonable, printable, table


def test_results_go_to_stdout_and_remarks_to_stderr(capsys):
    screen = Screen()
    screen.say("a remark")
    screen.result({"x": 1}, "the answer")
    assert capsys.readouterr() == ("the answer\n", "a remark\n")


def test_quiet_leaves_the_result(capsys):
    screen = Screen(Output(quiet=True))
    screen.say("a remark")
    screen.result({"x": 1}, "the answer")
    assert capsys.readouterr() == ("the answer\n", "")


def test_json_is_one_object_and_nothing_else(capsys):
    Screen(Output(json=True)).result({"path": Path("a"), "loss": math.nan, "n": np.int64(3)}, "never shown")
    out = capsys.readouterr().out
    assert json.loads(out) == {"path": "a", "loss": None, "n": 3}
    assert out.count("\n") == 1


def test_jsonable_reaches_inside():
    value = {1: [np.float32(0.5), (None, True)], "inf": {"x": math.inf}, "set": {"a"}, "array": np.arange(2)}
    assert jsonable(value) == {"1": [0.5, [None, True]], "inf": {"x": None}, "set": ["a"], "array": "[0 1]"}


@pytest.mark.parametrize(
    ("value", "text"),
    [("a\x1b[31mb", "a\\x1b[31mb"), ("a\u202eb", "a\\u202eb"), ("two\nlines", "two\nlines"), (12345, "12,345"),
     (True, "yes"), (0.123456, "0.1235"), ("[bold]x[/bold]", "[bold]x[/bold]")],
)  # fmt: skip
def test_printable(value, text):
    assert printable(value) == text


def test_brackets_and_colons_survive_the_tables(capsys):
    screen = Screen()
    screen.result({}, facts({"[red]name": ":smile: [x]", "left out": None}, "[b]title"))
    screen.result({}, table(("name", "count"), [("[a]", 1234)], "T"))
    out = capsys.readouterr().out
    assert "[red]name  :smile: [x]" in out
    assert "left out" not in out
    assert "[b]title" in out
    assert "1,234" in out


def test_a_long_title_stays_on_one_line(capsys):
    Screen().result({}, facts({"format": "pt"}, "The file about itself"))
    Screen().result({}, table(("a", "b"), [(1, 2)], "What the figures say"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["The file about itself", "format  pt"]
    assert "What the figures say" in lines


def test_lines_in_a_pipe_are_not_wrapped(capsys):
    Screen().result({}, "x" * 150)
    assert capsys.readouterr().out == "x" * 150 + "\n"
