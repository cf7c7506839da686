"""Mistakes of texts and programs that others learn from, each with its source and a cell that repeats it.

    ```{erratum} The epsilon outside of the root
    :where: https://example.org/the/text/or/thread
    :cell: eps-outside

    What it says, what is right, and what it costs.
    ```

stands in a chapter; the page of all errata collects them (indexes.py). An erratum whose cell is not on its page ends
the build: a ledger of others' mistakes is only worth its checks. Tests: tests/book/test_errata.py.
"""

import re
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from . import facts
from .facts import BookError

THREAD = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+)/(?:issues|pull|discussions)/(\d+)\S*")


def short(place: str) -> str:
    """How an address is shown: a thread of GitHub as owner/project #number, any other without its scheme."""
    thread = THREAD.fullmatch(place)
    return f"{thread[1]} #{thread[2]}" if thread else place.split("://")[1]


class Erratum(SphinxDirective):
    """A mistake of the field; see the module."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar = {"where": directives.unchanged_required, "cell": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        title, places, cell = self.arguments[0], self.options["where"].split(), self.options["cell"]
        anchor = nodes.make_id(f"erratum-{title}")
        facts.add(self.env, "errata", (title, anchor, places, cell))
        links = [nodes.reference("", short(place), refuri=place) for place in places]
        box = nodes.container(ids=[anchor], classes=["erratum"])
        box += nodes.paragraph("", "", nodes.strong("", title), classes=["head"])
        box += self.parse_content_to_nodes()
        history = nodes.paragraph("", "History: ")
        for at, place in enumerate(links):
            history += [nodes.Text(", "), place] if at else [place]
        history += [nodes.Text(". Repeated by "), nodes.reference("", f"the cell {cell}", refid=f"cell-{cell}")]
        box += [history]
        return [box]


def _check(app: Sphinx, env: Any) -> None:
    cells = set(facts.of(env, "cells"))
    for page, (title, _, _, cell) in facts.of(env, "errata"):
        if (page, cell) not in cells:
            raise BookError(f"{page}: the erratum {title!r} names the cell {cell}, which is not on the page")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("erratum", Erratum)
    app.connect("env-updated", _check)
    return {"version": "1", "parallel_read_safe": False}
