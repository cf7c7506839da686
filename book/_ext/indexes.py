"""Pages that are made from all others: `{equations}`, every displayed equation with the lines that compute it or the
cell that checks it, and `{ledger}`, every erratum. Tests: tests/book/test_indexes.py.
"""

from functools import partial
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from . import facts
from .errata import short

Link = tuple[str, str | None]  # text, address


class place(nodes.General, nodes.Element):
    """Where an index stands; filled when all pages have been read."""


class Equations(SphinxDirective):
    kind = "equations"

    def run(self) -> list[nodes.Node]:
        facts.add(self.env, "indexes", self.kind)
        return [place(kind=self.kind)]


class Ledger(Equations):
    kind = "ledger"


def _fill(app: Sphinx, document: nodes.document, page: str) -> None:
    for node in list(document.findall(place)):
        node.replace_self({"equations": equations, "ledger": ledger}[node["kind"]](app, page))


def equations(app: Sphinx, page: str) -> list[nodes.Node]:
    """A table for each chapter: number, name, lines of code, cells."""
    env, to = app.env, partial(app.builder.get_relative_uri, page)
    code: dict[str, list[Link]] = {}
    for _, (label, _, path, lines) in facts.of(env, "derived"):
        code.setdefault(label, []).extend((f"{Path(path).name}:{n}", f"{to(f'code/{path}')}#L{n}") for n in lines)
    cells: dict[str, list[Link]] = {}
    for docname, (label, cell) in facts.of(env, "checked"):
        cells.setdefault(label, []).append((cell, f"{to(docname)}#cell-{cell}"))
    chapters: dict[str, list[nodes.row]] = {}
    for docname, (label, _) in facts.of(env, "displayed"):
        if label:
            number = env.toc_fignumbers.get(docname, {}).get("displaymath", {}).get(f"equation-{label}", ())
            where = (f"({'.'.join(map(str, number))})", f"{to(docname)}#equation-{label}")
            row = _row([[where], [(label.removeprefix("eq-"), None)], code.get(label, []), cells.get(label, [])])
            chapters.setdefault(docname, []).append(row)
    heads = ["equation", "name", "computed by", "checked by"]
    found: list[nodes.Node] = []
    for docname, rows in chapters.items():
        found += [nodes.rubric("", env.titles[docname].astext()), _table(heads, rows)]
    return found


def ledger(app: Sphinx, page: str) -> list[nodes.Node]:
    """A table of all errata: what, which chapter and cell, where it was found."""
    rows = []
    for docname, (title, anchor, places, cell) in facts.of(app.env, "errata"):
        uri = app.builder.get_relative_uri(page, docname)
        history = [(short(place), place) for place in places]
        chapter = app.env.titles[docname].astext()
        rows.append(_row([[(title, f"{uri}#{anchor}")], [(chapter, uri)], [(cell, f"{uri}#cell-{cell}")], history]))
    return [_table(["mistake", "chapter", "repeated by", "history"], rows)]


def _row(entries: list[list[Link]]) -> nodes.row:
    row = nodes.row()
    for parts in entries:
        entry = nodes.entry()
        for text, uri in parts:
            shown = nodes.reference("", text, refuri=uri, internal="://" not in uri) if uri else nodes.Text(text)
            entry += nodes.paragraph("", "", shown)
        row += entry
    return row


def _table(heads: list[str], rows: list[nodes.row]) -> nodes.table:
    group = nodes.tgroup(cols=len(heads))
    group += [nodes.colspec(colwidth=1) for _ in heads]
    group += nodes.thead("", _row([[(head, None)] for head in heads]))
    group += nodes.tbody("", *rows)
    return nodes.table("", group, classes=["index"])


def _again(app: Sphinx, env: Any) -> list[str]:
    return sorted({page for page, _ in facts.of(env, "indexes")})


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(place)
    app.add_directive("equations", Equations)
    app.add_directive("ledger", Ledger)
    app.connect("env-updated", _again)
    app.connect("doctree-resolved", _fill)
    return {"version": "1", "parallel_read_safe": False}
