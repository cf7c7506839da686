"""How much of the book is executed: three shares, printed by each build, which ends below the bars of conf.py.

    backward   the arithmetic statements of Volume 1's backward passes and of its optimizers' updates, in the modules of
               `book_covers` (conf.py) and in those that the book quotes: each stands beside an equation (derive.py) or
               is marked as bookkeeping, and few are
    formulas   displayed formulas that a line of code computes or a cell checks
    numbers    numbers in prose that a run printed; code, formulas, links, years and names such as "UTF-8", "chapter 3"
               or "section 5" do not count

What stands in an exercise is held to account by `nano-llama learn dev check`, and does not count here.

Tests: tests/book/test_shares.py.
"""

import ast
import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

from . import facts
from .derive import statements
from .facts import BookError

log = logging.getLogger(__name__)
VOLUME_1 = "nano_llama/vol1_numpy/"
JOINED = ("_one", "collect_grads", "loss_and_grads")  # where the model joins backward passes
STATE = ("__init__", "state_dict", "load_state_dict")  # of an optimizer: what it keeps, not what it computes
NAMES = ("[Cc]hapters?", "[Vv]olumes?", "[Ss]ections?", "[Ee]quations?", "[Tt]ables?", "[Aa]lgorithms?", "[Pp]art")
NAMED = rf"(?:{'|'.join(NAMES)}|arXiv|issues?|line|PR|Llama)"
EXEMPT = re.compile(
    rf"{NAMED}\s[\d.]+(?:(?:\s(?:to|and)\s|, )[\d.]+)*"
    r"|#\d+|\b(?:1[6-9]|20)\d\d\b(?!\s*(?:bytes|tokens|bits))|https?://\S+|\w+(?:\.\w+)+/\S+"
)
NUMBER = re.compile(r"(?<![\w.\-])\d[\d,.]*(?<=\d)(?![\w])")
SKIPPED = (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw, nodes.reference, nodes.comment)
SKIPPED_CLASSES = {"number", "exercise"}


def typed_numbers(document: nodes.document) -> list[str]:
    """The numbers in prose that nobody computed."""
    found = []
    for text in document.findall(nodes.Text):
        above = list(_ancestors(text))
        if not any(
            isinstance(node, SKIPPED) or {"number", "exercise"} & set(node.get("classes", ())) for node in above
        ):
            found += NUMBER.findall(EXEMPT.sub(" ", text.astext()))
    return found


def _ancestors(node: nodes.Node) -> Iterator[nodes.Element]:
    while node.parent is not None:
        node = node.parent
        yield node


def is_arithmetic(node: ast.stmt) -> bool:
    """Whether a statement computes: an operator on arrays, an update in place, a function of NumPy."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return False  # a docstring
    for part in ast.walk(node):
        if isinstance(part, ast.BinOp | ast.AugAssign) and not isinstance(part.op, ast.BitOr):  # |: of dicts
            return True
        if isinstance(part, ast.Call) and ast.unparse(part.func).startswith("np."):
            return True
    return False


def computes(path: str, name: str) -> bool:
    """Whether a function of this name, in this module of Volume 1, is a backward pass or a part of an update."""
    if path.startswith(f"{VOLUME_1}optim/"):
        return name not in STATE
    return "_backward" in name or name in JOINED


def backward_statements(path: str) -> set[tuple[str, int]]:
    """(path, line) of the arithmetic statements of a module's backward passes, or of an optimizer's updates."""
    module = ast.parse((facts.ROOT / path).read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef) and computes(path, node.name)]
    return {(path, node.lineno) for function in functions for node in statements(function) if is_arithmetic(node)}


def modules(covers: tuple[str, ...], later: dict[str, str], quoted: set[str]) -> list[str]:
    """The paths of the modules that are held to account: those of the patterns `covers`, and of Volume 1 the quoted."""
    found = (path for pattern in filter(None, covers) for path in facts.ROOT.glob(pattern))
    covered = {str(path.relative_to(facts.ROOT)) for path in found}
    gone = [path for path in later if not (facts.ROOT / path).is_file()]
    if gone:
        raise BookError(f"book_later names modules that are not there: {', '.join(gone)}")
    return sorted((covered - later.keys()) | {path for path in quoted if path.startswith(VOLUME_1)})


def _read(app: Sphinx, document: nodes.document) -> None:
    env = app.env
    if not env.docname.startswith("chapters/"):
        return
    for node in document.findall(nodes.math_block):
        if not any("exercise" in above.get("classes", ()) for above in _ancestors(node)):
            facts.add(env, "displayed", (node.get("label"), node.astext()))
    printed = sum("number" in node["classes"] for node in document.findall(nodes.inline))
    facts.add(env, "numbers", (printed, typed_numbers(document)))


def report(app: Sphinx, env: Any) -> None:
    """Print the shares. Raises BookError, with what is missing, for one below its bar."""
    config, bars = app.config, app.config.book_bars
    quoted = {path for _, path in facts.of(env, "quoted")}
    held = modules(tuple(config.book_covers), config.book_later, quoted)
    all_lines = {line for path in held for line in backward_statements(path)}
    tied = {(path, n) for _, (_, _, path, lines) in facts.of(env, "derived") for n in lines}
    marked = {(path, n) for _, (path, lines) in facts.of(env, "bookkeeping") for n in lines} & all_lines
    open_lines = sorted(all_lines - tied - marked)
    what = "statements of backward passes and updates beside an equation or marked"
    _judge(what, all_lines, open_lines, bars["backward"])
    if len(marked) > bars["bookkeeping"] * max(1, len(all_lines)):
        raise BookError(f"{len(marked)} of {len(all_lines)} backward statements are marked as bookkeeping")
    labels = {label for kind in ("derived", "checked") for _, (label, *_) in facts.of(env, kind)}
    shown = [(page, label or tex) for page, (label, tex) in facts.of(env, "displayed")]
    untied = [(page, name) for page, name in shown if name not in labels]
    _judge("displayed formulas that are executed", shown, untied, bars["formulas"])
    unknown = sorted(labels - {name for _, name in shown})
    if unknown:
        raise BookError(f"No chapter displays the equations {', '.join(unknown)}")
    counts = [(page, fact) for page, fact in facts.of(env, "numbers")]
    typed = [(page, number) for page, (_, numbers) in counts for number in numbers]
    printed = sum(printed for _, (printed, _) in counts)
    _judge("numbers in prose from a run", range(printed + len(typed)), typed, bars["numbers"])
    log.info("bookkeeping among the backward statements: %d of %d", len(marked), len(all_lines))


def _judge(what: str, everything: Any, missing: list[Any], bar: float) -> None:
    total, done = len(everything), len(everything) - len(missing)
    share = done / total if total else 1.0
    log.info("%s: %d of %d (%.1f%%, bar %.0f%%)", what, done, total, 100 * share, 100 * bar)
    for where, name in missing:
        log.info("    not so: %s: %s", where, name)
    if share < bar:
        raise BookError(f"{what}: {100 * share:.1f}%, below the bar of {100 * bar:.0f}%")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("book_bars", {}, "env")
    app.add_config_value("book_covers", [], "env", (list,))
    app.add_config_value("book_later", {}, "env")
    app.connect("doctree-read", _read, priority=900)
    app.connect("env-updated", report)  # before the environment is kept: what fails once fails again
    return {"version": "1", "parallel_read_safe": False}
