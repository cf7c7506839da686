"""What the reader sees of a cell: its code, what it printed, its picture in two themes.

Tests: tests/book/test_cells.py.
"""

from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from .river import river
from .sources import highlighted
from .traces import steps


def show(part: dict[str, Any], result: dict[str, Any], page: str) -> list[nodes.Node]:
    """The nodes that replace a part of a chapter's program, given its result."""
    if part["kind"] == "number":
        return [nodes.inline("", result["text"], classes=["number"])]
    if part["kind"] == "value":
        shown = {"title": part["title"], "values": result["value"]}
        html = river(**shown) if "river" in part else steps(part["name"], **shown)
        return [nodes.raw("", html, format="html")]
    html = "\n".join(highlighted(part["code"])).rstrip("\n")
    code = f'<div class="highlight"><pre>{html}\n</pre></div>'
    if "folded" in part:
        code = f"<details><summary>{escape(part['folded'])}</summary>{code}</details>"
    if "recorded" in part:
        code += '<p class="recorded">Recorded: the build does not run this cell.</p>'
    output = f'<pre class="printed">{escape(result["printed"])}</pre>' if result["printed"] else ""
    head = (
        f'<div class="cell" id="cell-{part["name"]}" data-chapter="{page.split("/")[-1]}" data-cell="{part["name"]}">'
    )
    found = nodes.raw("", f"{head}{code}{output}</div>", format="html")
    if part["kind"] != "figure":
        return [found]
    return [picture(name=f"{page.replace('/', '-')}-{part['name']}", says=part["figure"], drawn=result["drawn"]), found]


class picture(nodes.General, nodes.Element):
    """An SVG for each theme; the theme's own classes show one of them."""


def _write(translator: Any, node: picture) -> None:
    page, folder = translator.builder.current_docname, Path(translator.builder.outdir) / "_figures"
    folder.mkdir(exist_ok=True)
    images = ""
    for theme, svg in node["drawn"].items():
        file = folder / f"{node['name']}-{theme}.svg"
        file.write_text(svg, encoding="utf-8")
        up = "../" * page.count("/")
        alt = escape(node["says"], quote=True)
        images += f'<img class="only-{theme}" src="{up}_figures/{file.name}" alt="{alt}">'
    translator.body.append(f'<figure class="drawn">{images}</figure>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(picture, html=(_write, None))
    return {"version": "1", "parallel_read_safe": False}
