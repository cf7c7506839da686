"""A page's cells, in the process of worker.py: run from the top, as the book runs them; the last one's output counts.

Tests: tests/learn/test_serve.py.
"""

import io
import linecache
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

PRINTED = 100_000  # characters that are returned


def answer(cells: list[dict[str, str]]) -> dict[str, Any]:
    """Run cells, each {"name", "code"}, in one namespace.

    -> {"printed": by the last, "error": a traceback or None, "picture": an SVG or None}
    """
    if any("matplotlib" in cell["code"] for cell in cells):
        import matplotlib

        matplotlib.use("svg")  # no window
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed, error = io.StringIO(), None
    for cell in cells:
        printed, name = io.StringIO(), f"<cell {cell['name']}>"
        _close_pictures()
        linecache.cache[name] = (len(cell["code"]), None, cell["code"].splitlines(True), name)  # for tracebacks
        try:
            with redirect_stdout(printed), redirect_stderr(printed):
                exec(compile(cell["code"], name, "exec"), namespace)
        except (Exception, SystemExit):
            error = _from_cells(traceback.format_exc())
            break
    return {"printed": printed.getvalue()[:PRINTED], "error": error, "picture": None if error else _picture()}


def _from_cells(text: str) -> str:
    """A traceback without our own frame."""
    head, _, rest = text.partition("\n")
    at = rest.find('  File "<cell ')
    return f"{head}\n{rest[at:]}" if at >= 0 else text


def _picture() -> str | None:
    """The figure that was drawn, if one was."""
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    if pyplot is None or not pyplot.get_fignums():
        return None
    drawn = io.StringIO()
    pyplot.gcf().savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()


def _close_pictures() -> None:
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close("all")
