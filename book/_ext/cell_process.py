"""The process that runs one chapter: a list of its parts on stdin, a list of their results on stdout, both JSON.

Stands alone, without Sphinx; cells.py says what the parts are. Tests: tests/book/test_cells.py.
"""

import contextlib
import io
import json
import linecache
import sys
import traceback
from typing import Any

LIGHT = {"text": "#1f2328", "grid": "#d0d7de", "lines": ["#0b62c4", "#c2410c", "#15803d", "#7e22ce", "#57606a"]}
DARK = {"text": "#e6edf3", "grid": "#3d444d", "lines": ["#6cb6ff", "#f0883e", "#57c785", "#d2a8ff", "#9ea7b3"]}


def run(program: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of a chapter's parts, each run in the namespace that those above it left."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    return [KINDS[part["kind"]](part, namespace) for part in program]


def cell(part: dict[str, Any], namespace: dict[str, Any]) -> dict[str, Any]:
    if known := part.get("known"):
        namespace |= known["values"]
        return {"printed": known["printed"]}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        execute(part, namespace)
    result: dict[str, Any] = {"printed": printed.getvalue()}
    if "recorded" in part:
        values = {name: namespace[name] for name in part["recorded"]}
        result["known"] = {"printed": printed.getvalue(), "values": json.loads(json.dumps(values))}
    return result


def figure(part: dict[str, Any], namespace: dict[str, Any]) -> dict[str, Any]:
    """The cell is run twice: what differs is matplotlib's colours."""
    import matplotlib
    from matplotlib import pyplot

    pictures = {}
    for theme, colours in (("light", LIGHT), ("dark", DARK)):
        with matplotlib.rc_context(style(colours)):
            execute(part, namespace)
            drawn = io.StringIO()
            pyplot.gcf().savefig(drawn, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
            pyplot.close("all")
        pictures[theme] = drawn.getvalue()
    return {"printed": "", "drawn": pictures}


def style(colours: dict[str, Any]) -> dict[str, Any]:
    from cycler import cycler

    text, grid = colours["text"], colours["grid"]
    named = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.titlecolor"), text)
    return named | {
        "axes.edgecolor": grid, "grid.color": grid, "axes.grid": True, "axes.axisbelow": True, "axes.spines.top": False,
        "axes.spines.right": False, "axes.prop_cycle": cycler(color=colours["lines"]), "figure.figsize": (6.4, 3.4),
        "figure.constrained_layout.use": True, "font.size": 10.5, "legend.frameon": False, "svg.hashsalt": "book",
        "svg.fonttype": "path", "hatch.color": text, "lines.linewidth": 1.8,
    }  # fmt: skip


def value(part: dict[str, Any], namespace: dict[str, Any]) -> dict[str, Any]:
    """What a trace shows: any JSON."""
    return {"value": json.loads(json.dumps(evaluate(part, part["code"], namespace)))}


def number(part: dict[str, Any], namespace: dict[str, Any]) -> dict[str, Any]:
    return {"text": evaluate(part, f"f'''{{{part['code']}}}'''", namespace)}


def execute(part: dict[str, Any], namespace: dict[str, Any]) -> None:
    name = f"<cell {part['name']}>"
    linecache.cache[name] = (len(part["code"]), None, part["code"].splitlines(True), name)  # tracebacks show the line
    exec(compile(part["code"], name, "exec"), namespace)


def evaluate(part: dict[str, Any], expression: str, namespace: dict[str, Any]) -> Any:
    return eval(compile(expression, f"<{part['kind']} {part['name']}>", "eval"), namespace)


KINDS = {"cell": cell, "figure": figure, "number": number, "value": value}

if __name__ == "__main__":
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what is printed outside of a cell is not an answer
            answers = run(json.load(sys.stdin))
        json.dump(answers, sys.stdout)
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
