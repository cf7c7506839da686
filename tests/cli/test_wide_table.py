"""Tables on screens of every width: no word and no number is broken, and every column is there."""

import io

import pytest
from rich.console import Console

from nano_llama.cli.common import table
from nano_llama.cli.wide_table import parts, widths

HEADER = ("run", "parameters", "best val loss", "tokens/s", "time", "state")
ROWS = [
    ("rates/lr=0.001/seed-0", "803.8k", "2.9868", 12446, "46.8 s", "finished"),
    ("sign", "803.8k", "3.0585", 4549, "1 min 2 s", "running, the newest of all"),
]


def printed(width, header=HEADER, rows=ROWS, title=None):
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    console.print(table(header, rows, title))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [34, 40, 60, 80, 120])
def test_words_and_numbers_stay_whole(width):
    lines = printed(width)
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    for cell in (*HEADER, *(f"{cell:,}" if isinstance(cell, int) else cell for row in ROWS for cell in row)):
        assert all(word in words for word in cell.split()), cell
    assert any("46.8 s" in line for line in lines)  # a figure and its unit stay together


def test_a_wide_screen_has_one_table_and_a_narrow_one_names_the_rows_again():
    assert len(printed(120)) == 1 + len(ROWS)
    text = "\n".join(printed(50, title="Runs"))
    assert [text.count(name) for name in ("Runs", *(row[0] for row in ROWS))] == [1, 3, 3]
    assert [text.count(name) for name in HEADER[1:] if " " not in name] == [1, 1, 1, 1]


def test_a_mark_before_the_names_is_repeated_with_them():
    rows = [("->", "01_language_model/01_equal_perplexity", "a few words of a title"), ("", "02_text/01_x", "one")]
    text = "\n".join(
        printed(54, ("", "exercise", "stars", "", "title"), [(*row[:2], "***", "", row[2]) for row in rows])
    )
    assert text.count("->  01_language_model/01_equal_perplexity") == 2
    assert parts([2, 30, 10, 10], 50, keys=2) == [[0, 1, 2], [0, 1, 3]]
    assert parts([2, 30, 100], 50, keys=2) == [[0, 1, 2]]  # never the names alone


def test_room_goes_to_what_wants_it_and_is_taken_from_the_widest():
    assert widths([3, 4], [3, 20], room=40) == [3, 20]
    assert sum(widths([3, 4], [30, 20], room=20)) == 18
    assert widths([50, 4], [50, 4], room=20) == [14, 4]
    assert widths([5, 5, 5], [5, 5, 5], room=3) == [1, 1, 1]


def test_a_word_longer_than_the_screen_is_folded():
    lines = printed(20, ("path",), [("x" * 50,)])
    assert "".join(lines).count("x") == 50 and max(map(len, lines)) <= 20


def test_a_table_without_rows_is_its_header():
    assert printed(80, rows=[])[0].split() == ["run", "parameters", "best", "val", "loss", "tokens/s", "time", "state"]
