"""The page's token river in a chapter: the component of nano_llama/server/page, over an answer that a cell computed.

    ```{river} answer
    :title: A sentence, as nano_gpt reads it
    ```

shows a variable of the chapter's cells, a list of {"id", "text", "logprob"}. The page holds them as a table, so that it
prints and reads without JavaScript; with it the component takes the table's place. A browser loads no modules from a
disk, so the component and what it imports are joined to one script.
Tests: tests/book/test_pages.py.
"""

import json
import math
import re
from html import escape
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from .facts import ROOT

PAGE = ROOT / "nano_llama/server/page"
MODULES = ("lib/dom.js", "views/river.js")  # each below what it imports; what asks a server has no element in a book
SCRIPT = "river.js"
SHOW = """
for (const river of document.querySelectorAll("nl-river[data-answer]")) {
    river.show({ tokens: JSON.parse(river.dataset.answer), running: false });
}
"""


def joined() -> str:
    """The modules as one classic script: without their imports and exports."""
    texts = [(PAGE / name).read_text(encoding="utf-8") for name in MODULES]
    plain = [re.sub(r"^export ", "", re.sub(r"^import .*\n", "", text, flags=re.M), flags=re.M) for text in texts]
    return "(() => {\n" + "\n".join(plain) + SHOW + "})();\n"


def river(title: str, values: list[dict[str, Any]]) -> str:
    """HTML of a river: its table, until the script runs."""
    rows = "".join(
        f"<tr><td>{escape(token['text'])}</td><td>{-token['logprob'] / math.log(2):.2f}</td></tr>" for token in values
    )
    table = f"<table><thead><tr><th>token</th><th>bits</th></tr></thead><tbody>{rows}</tbody></table>"
    said = escape(json.dumps(values), quote=True)
    return (
        f'<section class="river" aria-label="{escape(title, quote=True)}"><p class="head">{escape(title)}</p>'
        f'<nl-river data-answer="{said}">{table}</nl-river></section>'
    )


class River(SphinxDirective):
    """Show a variable as a river; see the module."""

    required_arguments = 1
    option_spec: ClassVar = {"title": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        from .cells import item  # which shows rivers

        name = self.arguments[0]
        return [item(says={"kind": "value", "name": name, "code": name, "title": self.options["title"], "river": True})]


def _write(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        (Path(app.outdir) / "_static" / SCRIPT).write_text(joined(), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("river", River)
    app.add_js_file(SCRIPT, loading_method="defer")
    app.connect("build-finished", _write, priority=100)  # before the site is looked through
    return {"version": "1", "parallel_read_safe": False}
