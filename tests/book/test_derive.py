"""An equation stands beside the lines that compute it, and a line that changed ends the build."""

import ast
import sys

import pytest

from helpers.prose import ROOT

pytestmark = pytest.mark.book
sys.path.insert(0, str(ROOT / "book"))
WHERE = "nano_llama.vol1_numpy.ops.linear:linear_backward"
PAGE = """# One

$$
dx = dy\\, W
$$ (eq-dx)

```{derive} eq-dx
:in: nano_llama.vol1_numpy.ops.linear:linear_backward

LINE
return dx.reshape(*dy.shape[:-1], weight.shape[1]), dy_rows.T @ x
```
"""
DATA = '{"$$dx = dy\\\\, W$$": "<math></math>"}'


def page(line: str) -> dict[str, str]:
    return {"chapters/one": PAGE.replace("LINE", line), "formulas.json": DATA}


def test_lines_are_shown_with_their_numbers(book):
    built = book(page("dx = dy_rows @ weight"))
    assert built.code == 0, built.said
    lines = (ROOT / "nano_llama/vol1_numpy/ops/linear.py").read_text().splitlines()
    number = next(n for n, line in enumerate(lines, 1) if "dx = dy_rows @ weight" in line)
    shown = built.page("chapters/one")
    assert f'data-line="{number}"' in shown
    assert f'code/nano_llama/vol1_numpy/ops/linear.py.html#L{number}"' in shown
    assert f'id="L{number}"' in built.page("code/nano_llama/vol1_numpy/ops/linear.py")


def test_a_line_that_is_not_there_ends_the_build(book):
    built = book(page("dx = dy_rows @ weight.T"))
    assert built.code != 0
    assert "has no line  dx = dy_rows @ weight.T" in built.said and "chapters/one" in built.said


def test_an_equation_that_no_page_displays_ends_the_build(book):
    built = book(
        {"chapters/one": PAGE.replace("LINE", "").replace("derive} eq-dx", "derive} eq-dy"), **{"formulas.json": DATA}}
    )
    assert built.code != 0


def test_layout_and_comments_do_not_count_and_a_changed_sign_does():
    from _ext import derive, sources
    from _ext.facts import BookError

    there = "def f(x):\n    y = (x -\n         1)  # why\n    return y\n"
    quoted = sources.Quoted("m:f", "m.py", there, ast.parse(there).body[0])
    assert [node.lineno for node in derive.locate(quoted, "y = x - 1")] == [2]
    with pytest.raises(BookError, match="stale"):
        derive.locate(quoted, "y = x + 1")
    with pytest.raises(BookError, match="no statement"):
        derive.locate(quoted, "")
