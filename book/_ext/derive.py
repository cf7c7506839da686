"""An equation beside the very lines that compute it.

    ```{derive} eq-rmsnorm-dx
    :in: nano_llama.vol1_numpy.ops.rmsnorm:rmsnorm_backward

    dx = r * g - x * r**3 * np.mean(g * x, axis=-1, keepdims=True)
    ```

repeats statements of the function. They are compared as Python (layout and comments do not count), and a statement that
is no longer there ends the build: whoever changed the line looks at its equation again. Of a function's arithmetic,
what has no mathematics in it, such as allocating a result, is marked in the same way:

    ```{bookkeeping} nano_llama.vol1_numpy.ops.embedding:embedding_backward
    dweight = np.zeros(shape, dy.dtype)
    ```

shares.py counts both. Tests: tests/book/test_derive.py.
"""

import ast
import textwrap
from collections.abc import Iterator
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from . import facts
from .facts import BookError
from .sources import Quoted, find, link, numbered


def statements(tree: ast.AST) -> Iterator[ast.stmt]:
    """The statements inside, those that hold others (def, for, if, with) left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and not hasattr(node, "body"):
            yield node


def locate(quoted: Quoted, code: str) -> list[ast.stmt]:
    """The statements of `code` where they stand in the quoted object. Raises BookError for one that does not."""
    there: dict[str, ast.stmt] = {}
    for node in statements(quoted.tree):
        there.setdefault(ast.dump(node), node)
    found = []
    for wanted in statements(ast.parse(textwrap.dedent(code))):
        if ast.dump(wanted) not in there:
            raise BookError(f"{quoted.name} has no line  {ast.unparse(wanted)}\nThe equation beside it is stale.")
        found.append(there[ast.dump(wanted)])
    if not found:
        raise BookError(f"derive {quoted.name}: no statement is given")
    return found


class _Located(SphinxDirective):
    has_content = True
    required_arguments = 1

    def locate(self, name: str) -> tuple[Quoted, list[ast.stmt]]:
        try:
            quoted = find(name)
            found = locate(quoted, "\n".join(self.content))
        except (BookError, SyntaxError) as error:
            raise BookError(f"{self.env.docname}, line {self.lineno}: {error}") from None
        facts.add(self.env, "quoted", quoted.path)
        return quoted, found


class Derive(_Located):
    """Tie one or more equations to statements; see the module."""

    final_argument_whitespace = True
    option_spec: ClassVar = {"in": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        quoted, found = self.locate(self.options["in"])
        labels = self.arguments[0].split()
        lines = sorted({n for node in found for n in range(node.lineno, (node.end_lineno or node.lineno) + 1)})
        for label in labels:
            facts.add(self.env, "derived", (label, quoted.name, quoted.path, [node.lineno for node in found]))
        box = nodes.container(classes=["derive"])
        says = " and ".join(f"{{eq}}`{label}`" for label in labels)
        box += self.parse_text_to_nodes(f"{says} in code:")
        html = f'<p class="head">{link(self.env.docname, quoted, lines[0])}</p>{numbered(quoted, lines)}'
        box += nodes.raw("", html, format="html")
        return [box]


class Bookkeeping(_Located):
    """Mark statements that hold no mathematics; nothing is shown."""

    def run(self) -> list[nodes.Node]:
        quoted, found = self.locate(self.arguments[0])
        facts.add(self.env, "bookkeeping", (quoted.path, [node.lineno for node in found]))
        return []


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("derive", Derive)
    app.add_directive("bookkeeping", Bookkeeping)
    return {"version": "1", "parallel_read_safe": False}
