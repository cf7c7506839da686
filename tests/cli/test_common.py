"""What reaches the screen: results on stdout, remarks on stderr, nothing that commands the terminal."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from nano_llama.cli.common import Output, Screen, count_text, facts, jsonable, printable, size_text, table, time_text


def test_results_and_remarks_go_apart(capsys):
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


def test_a_title_longer_than_its_table_stays_on_one_line(capsys):
    Screen().result({}, facts({"format": "pt"}, "The file about itself"))
    Screen().result({}, table(("a", "b"), [(1, 2)], "What the figures say"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["The file about itself", "format  pt"]
    assert "What the figures say" in lines


def test_a_pipe_is_not_folded_at_80_columns(capsys):
    Screen().result({}, "x" * 150)
    assert capsys.readouterr().out == "x" * 150 + "\n"


def test_units():
    assert [size_text(n) for n in (0, 1023, 1536, 2**30, 3 * 2**40)] == [
        "0 bytes", "1,023 bytes", "1.5 KiB", "1.0 GiB", "3.0 TiB",
    ]  # fmt: skip
    assert [count_text(n) for n in (5, 6500, 134_515_008, 8e9)] == ["5", "6.5k", "134.5M", "8.0B"]
    assert [time_text(s) for s in (0.25, 59, 75.2, 3599.9, 7260)] == [
        "0.2 s", "59.0 s", "1 min 15 s", "1 h 0 min", "2 h 1 min",
    ]  # fmt: skip
