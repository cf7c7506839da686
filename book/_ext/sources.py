"""Code of the package, quoted as it stands: never pasted, with the line numbers of its file and a link to it.

    ```{source} nano_llama.core.loss:bits_per_byte
    ```

quotes a function, class or method without its docstring (:docstring: keeps it); a module without a name is quoted
whole. :from: and :to: quote part of it: from the first line that holds the one text to the next that holds the other.
Every file that is quoted becomes a page of the site, so that the link works from a disk too.

Tests: tests/book/test_sources.py.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from . import facts
from .facts import BookError


@dataclass(frozen=True)
class Quoted:
    """An object of the package: where it stands, and its syntax tree."""

    name: str  # "nano_llama.core.loss:bits_per_byte"
    path: str  # "nano_llama/core/loss.py"
    text: str  # of the whole file
    tree: ast.AST

    @property
    def lines(self) -> range:
        """1-based numbers of its lines, decorators included."""
        if isinstance(self.tree, ast.Module):
            return range(1, len(self.text.splitlines()) + 1)
        first = min(node.lineno for node in [self.tree, *getattr(self.tree, "decorator_list", [])])
        return range(first, self.tree.end_lineno + 1)

    @property
    def docstring_lines(self) -> range:
        body = self.tree.body
        if ast.get_docstring(self.tree) is None:
            return range(0)
        return range(body[0].lineno, body[0].end_lineno + 1)


def find(name: str) -> Quoted:
    """The object "package.module:Class.method", or a whole module. Raises BookError where there is none."""
    module, _, qualified = name.partition(":")
    path = module.replace(".", "/") + ".py"
    if not (facts.ROOT / path).is_file():
        raise BookError(f"{name}: the package has no file {path}")
    text = (facts.ROOT / path).read_text(encoding="utf-8")
    tree: ast.AST = ast.parse(text)
    for part in filter(None, qualified.split(".")):
        inside = [node for node in getattr(tree, "body", []) if part in _defines(node)]
        if not inside:
            raise BookError(f"{name}: {path} defines no {part}")
        tree = inside[0]
    return Quoted(name, path, text, tree)


def _defines(node: ast.AST) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {target.id for target in targets if isinstance(target, ast.Name)}
    return set()


def between(quoted: Quoted, lines: list[int], first: str, last: str | None) -> list[int]:
    """Of these lines, those from the first that holds `first` to the next that holds `last` (None: to the end)."""
    text = dict(enumerate(quoted.text.splitlines(), 1))
    kept = lines[next((at for at, n in enumerate(lines) if first in text[n]), len(lines)) :]
    if last is not None:
        kept = kept[: next((at + 1 for at, n in enumerate(kept) if last in text[n]), 0)]
    while kept and not text[kept[-1]].strip():
        kept.pop()
    if not kept:
        raise BookError(f"{quoted.name} has no lines from {first!r} to {last!r}")
    return kept


def highlighted(text: str) -> list[str]:
    """HTML of each line of Python."""
    return highlight(text, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)).split("\n")


def numbered(quoted: Quoted, wanted: list[int]) -> str:
    """HTML of these lines, each with its number; where lines are left out, a gap."""
    html = highlighted(quoted.text)
    rows, previous = [], None
    for number in wanted:
        gap = ' class="gap"' if previous is not None and number != previous + 1 else ""
        rows.append(f'<span data-line="{number}"{gap}>{html[number - 1]}\n</span>')
        previous = number
    return f'<div class="highlight"><pre class="numbered">{"".join(rows)}</pre></div>'


def link(docname: str, quoted: Quoted, line: int) -> str:
    """HTML of a link from a page to a line of a quoted file."""
    up = "../" * docname.count("/")
    return f'<a class="where" href="{up}code/{quoted.path}.html#L{line}">{escape(quoted.path)}:{line}</a>'


class Source(SphinxDirective):
    """Quote an object of the package; see the module."""

    required_arguments = 1
    option_spec: ClassVar = {"docstring": directives.flag, "from": directives.unchanged, "to": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        quoted = find(self.arguments[0])
        lines = list(quoted.lines)
        if "docstring" not in self.options:
            lines = [number for number in lines if number not in quoted.docstring_lines]
        lines = between(quoted, lines, self.options.get("from", ""), self.options.get("to"))
        facts.add(self.env, "quoted", quoted.path)
        where = link(self.env.docname, quoted, lines[0])
        html = f'<div class="source"><p class="head">{where}</p>{numbered(quoted, lines)}</div>'
        return [nodes.raw("", html, format="html")]


def _pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page for each quoted file, every line with an anchor."""
    for path in sorted({path for _, path in facts.of(app.env, "quoted")}):
        html = highlighted((facts.ROOT / path).read_text(encoding="utf-8"))
        rows = [f'<span id="L{n}" data-line="{n}">{line}\n</span>' for n, line in enumerate(html[:-1], 1)]
        body = f'<h1>{path}</h1><div class="highlight"><pre class="numbered">{"".join(rows)}</pre></div>'
        yield f"code/{path}", {"title": Path(path).name, "body": body}, "page.html"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("source", Source)
    app.connect("html-collect-pages", _pages)
    return {"version": "1", "parallel_read_safe": False}
