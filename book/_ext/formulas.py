"""Formulas as MathML, made by Temml when a chapter is written and kept in `formulas.json`: {"$x$" or "$$x$$": MathML}.

A reader needs neither Node nor JavaScript: the browser sets MathML by itself. A formula that is not in the file ends
the build, and says which command renders it: `make formulas`, which is this extension with render_formulas=1. There a
formula that Temml cannot parse ends the build. Formulas that no page uses any more leave the file.

Tests: tests/book/test_formulas.py.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.math import get_node_equation_number

from . import facts
from .facts import BookError

# Reads a list of [formula, display], writes a list of {html} or {error}; Temml is found from book/node_modules.
RENDER = """
const temml = require("temml");
const asked = JSON.parse(require("fs").readFileSync(0));
const answer = asked.map(([tex, displayMode]) => {
  try { return {html: temml.renderToString(tex, {displayMode, throwOnError: true})}; }
  catch (error) { return {error: error.message}; }
});
process.stdout.write(JSON.stringify(answer));
"""


def key(tex: str, display: bool) -> str:
    tex = " ".join(tex.split())
    return f"$${tex}$$" if display else f"${tex}$"


def render(asked: list[str], folder: Path) -> dict[str, str]:
    """MathML of each key, by one Node process. Raises BookError for a formula that does not parse."""
    if shutil.which("node") is None:
        raise BookError("make formulas needs Node: install nodejs and npm, then run it again.")
    pairs = [(found.strip("$"), found.startswith("$$")) for found in asked]
    done = subprocess.run(
        ["node", "-e", RENDER], input=json.dumps(pairs), capture_output=True, text=True, cwd=folder, check=False
    )
    if done.returncode:
        raise BookError(f"Temml did not run (npm install --prefix book): {done.stderr.strip()[-400:]}")
    answers = json.loads(done.stdout)
    wrong = [f"{tex}\n    {a['error']}" for tex, a in zip(asked, answers, strict=True) if "error" in a]
    if wrong:
        raise BookError("These formulas do not parse:\n" + "\n".join(wrong))
    return {tex: a["html"] for tex, a in zip(asked, answers, strict=True)}


def _load(app: Sphinx) -> None:
    path = Path(app.srcdir) / "formulas.json"
    app.book_formulas = json.loads(path.read_text()) if path.exists() else {}


def _collect(app: Sphinx, document: nodes.document) -> None:
    for node in document.findall(lambda n: isinstance(n, nodes.math | nodes.math_block)):
        facts.add(app.env, "formulas", key(node.astext(), isinstance(node, nodes.math_block)))


def _check(app: Sphinx, env: Any) -> None:
    used = sorted({formula for _, formula in facts.of(env, "formulas")})
    missing = [formula for formula in used if formula not in app.book_formulas]
    if app.config.render_formulas:
        known = app.book_formulas | render(missing, Path(app.srcdir))
        app.book_formulas = {formula: known[formula] for formula in used}
        text = json.dumps(app.book_formulas, ensure_ascii=False, indent=0)
        (Path(app.srcdir) / "formulas.json").write_text(text + "\n", encoding="utf-8")
    elif missing:
        shown = "\n".join(f"    {formula}" for formula in missing[:5])
        raise BookError(
            f"{len(missing)} formulas have no MathML in formulas.json, the first of them:\n{shown}\n"
            "Render them with  make formulas  (it needs Node; make book does not)."
        )


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(translator.builder.app.book_formulas[key(node.astext(), False)])
    raise nodes.SkipNode


def _display(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="formula"))
    translator.body.append(translator.builder.app.book_formulas[key(node.astext(), True)])
    if node["number"]:
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})</span>')
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("render_formulas", 0, "")
    app.add_html_math_renderer("temml", (_inline, None), (_display, None))
    app.connect("builder-inited", _load)
    app.connect("doctree-read", _collect)
    app.connect("env-updated", _check)
    return {"version": "1", "parallel_read_safe": False}
