"""Code that the book runs, and numbers in prose that come from it: a chapter is a program, read from top to bottom.

    ```{cell} uniform
    loss = math.log(V)
    print(loss)
    ```

    Guessing costs {n}`loss:.2f` nats.

Each chapter runs in one fresh process, its cells and numbers in the order of the page; a cell that raises ends the
build. What is in braces is an f-string's: an expression and, behind a colon, its format. Options of a cell:

    :checks: eq-a eq-b     its assert statements verify these equations (a cell without assert cannot)
    :figure: what one sees  draws with matplotlib, run twice, in light and dark; the text is the picture's description
    :folded: what it is    the code is shown folded
    :recorded: a b         takes minutes or data that is not here: the build does not run it, but takes its output and
                           the variables a and b from results/CHAPTER.json, which `make record` writes by running it

The results are kept in _build/cells by the hash of the program and of all that the pages stand on (facts.py).
Tests: tests/book/test_cells.py.
"""

import ast
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from . import facts
from .cell_output import show
from .facts import BookError

PROCESS = Path(__file__).with_name("cell_process.py")
log = logging.getLogger(__name__)


class item(nodes.General, nodes.Element):
    """A part of the chapter's program: its attribute `says` is what the process is sent. Replaced when it has run."""


class Cell(SphinxDirective):
    """A cell; see the module."""

    has_content = True
    required_arguments = 1
    option_spec: ClassVar = {
        "checks": directives.unchanged_required,
        "figure": directives.unchanged_required,
        "folded": directives.unchanged_required,
        "recorded": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        name, code = self.arguments[0], "\n".join(self.content)
        checks = self.options.get("checks", "").split()
        if checks and not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(code))):
            raise BookError(f"{self.env.docname}: the cell {name} checks {checks[0]}, but asserts nothing")
        for label in checks:
            facts.add(self.env, "checked", (label, name))
        facts.add(self.env, "cells", name)
        says: dict[str, Any] = {"kind": "cell", "name": name, "code": code, **self.options}
        if "figure" in self.options:
            says["kind"] = "figure"
        if "recorded" in self.options:
            says["recorded"] = self.options["recorded"].split()
        return [item(says=says)]


class Number(SphinxRole):
    """A number that the chapter computed; see the module. A number that is merely written out is refused."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        expression = self.text.rsplit(":", 1)[0] if ":" in self.text else self.text
        if isinstance(ast.parse(expression.strip(), mode="eval").body, ast.Constant):
            raise BookError(f"{self.env.docname}: {{n}}`{self.text}` is typed; name what computes it")
        return [item(says={"kind": "number", "name": self.text, "code": self.text})], []


def run_chapter(app: Sphinx, page: str, program: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The result of each part of a page's program, from the cache if nothing changed."""
    record = bool(app.config.record_cells)
    results = Path(app.srcdir) / "results" / f"{Path(page).name}.json"
    recorded = json.loads(results.read_text()) if results.exists() else {}
    for part in program:
        if "recorded" in part and not record:
            known = recorded.get(part["name"])
            if known is None or known["code"] != part["code"]:
                raise BookError(f"{page}: the cell {part['name']} has no recorded result: run  make record")
            part["known"] = known
    sent = json.dumps(program, sort_keys=True)
    digest = hashlib.sha256((sent + app.env.book_surroundings + sys.version).encode()).hexdigest()
    kept = Path(app.outdir).parent / "cells" / f"{page.replace('/', '-')}.json"
    if kept.exists() and (before := json.loads(kept.read_text()))["hash"] == digest and not record:
        return before["results"]
    found = _run(page, sent)
    if record:
        keep = {
            p["name"]: r["known"] | {"code": p["code"]} for p, r in zip(program, found, strict=True) if "known" in r
        }
        if keep:
            results.parent.mkdir(exist_ok=True)
            results.write_text(json.dumps(keep, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"hash": digest, "results": found}))
    return found


def _run(page: str, sent: str) -> list[dict[str, Any]]:
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **one_thread, "PYTHONPATH": str(facts.ROOT), "MPLBACKEND": "svg"}
    environment |= {"PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(PROCESS)]
    done = subprocess.run(command, input=sent, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise BookError(f"{page}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)


def _replace(app: Sphinx, document: nodes.document) -> None:
    parts = list(document.findall(item))
    if parts:
        results = run_chapter(app, app.env.docname, [part["says"] for part in parts])
        for part, result in zip(parts, results, strict=True):
            part.replace_self(show(part["says"], result, app.env.docname))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("record_cells", 0, "")
    app.add_node(item)
    app.add_directive("cell", Cell)
    app.add_role("n", Number())
    app.connect("doctree-read", _replace, priority=100)  # before the shares are counted
    return {"version": "1", "parallel_read_safe": False}
