"""A trace to click through: what an algorithm held after each of its steps.

    ```{trace} merges
    :title: Five merges over four words
    ```

shows a variable of the chapter's cells, a list of steps. A step is {"says": a sentence, "rows": [row, ...]}, a row
{"label": text, "boxes": [text, ...], "marked": [indices], "note": text}; all but the boxes may be missing. The page
holds all steps as a list, so that it prints and reads without JavaScript; stepper.js shows one at a time.

Tests: tests/book/test_cells.py.
"""

from html import escape
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def steps(name: str, title: str, values: list[dict[str, Any]]) -> str:
    """HTML of a trace."""
    items = "".join(f"<li><p>{escape(step['says'])}</p>{''.join(map(row, step['rows']))}</li>" for step in values)
    return (
        f'<section class="trace" id="trace-{name}" aria-label="{escape(title, quote=True)}">'
        f'<p class="head">{escape(title)}</p><ol>{items}</ol></section>'
    )


def row(says: dict[str, Any]) -> str:
    marked = says.get("marked", [])
    boxes = "".join(
        f"<mark>{escape(text)}</mark>" if at in marked else f"<span>{escape(text)}</span>"
        for at, text in enumerate(map(str, says["boxes"]))
    )
    label = f"<b>{escape(str(says['label']))}</b>" if "label" in says else ""
    note = f"<i>{escape(str(says['note']))}</i>" if "note" in says else ""
    return f'<div class="row">{label}<span class="boxes">{boxes}</span>{note}</div>'


class Trace(SphinxDirective):
    """Show a variable as steps; see the module."""

    required_arguments = 1
    option_spec: ClassVar = {"title": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        from .cells import item  # which shows traces

        name = self.arguments[0]
        return [item(says={"kind": "value", "name": name, "code": name, "title": self.options["title"]})]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("trace", Trace)
    return {"version": "1", "parallel_read_safe": False}
