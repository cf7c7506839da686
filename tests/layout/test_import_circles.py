"""No import circles. Imports inside functions count, and so do modules named in strings; one door is sanctioned."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The lazy door: LlamaConfig.from_pretrained, from_hf_dict and to_hf_dict call what reads and writes files.
SANCTIONED = {
    ("nano_llama.core.config", "nano_llama.formats"),
    ("nano_llama.core.config", "nano_llama.formats.hf_config"),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import below `node`, in functions too, but for those that only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        yield from import_statements(child)


def imported(statement: ast.Import | ast.ImportFrom, modules: set[str]) -> Iterator[str]:
    """The modules among `modules` that the statement names: `from package import module` names the module."""
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names if alias.name in modules)
        return
    assert statement.level == 0, "relative imports are not used here"
    for alias in statement.names:
        full = f"{statement.module}.{alias.name}"
        if full in modules:
            yield full
        elif statement.module in modules:
            yield str(statement.module)


def named_in_strings(tree: ast.AST, modules: set[str]) -> set[str]:
    """Modules to be imported later: by import_module, or as the program of another process."""
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value in modules}


def import_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """module -> the other modules that its source imports. sources: module -> its text."""
    modules = set(sources)
    graph = {}
    for name, text in sources.items():
        tree = ast.parse(text)
        targets = {target for statement in import_statements(tree) for target in imported(statement, modules)}
        graph[name] = (targets | named_in_strings(tree, modules)) - {name}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The sets of modules that reach each other (strongly connected components), by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(graph[name]):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            place = stack.index(name)
            together, stack[place:] = stack[place:], []
            if len(together) > 1:
                found.append(sorted(together))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return found


def test_no_import_circles():
    sources = {module_name(path): path.read_text() for path in (ROOT / "nano_llama").rglob("*.py")}
    graph = import_graph(sources)
    for importer, target in SANCTIONED:
        graph[importer].discard(target)
    assert not circles(graph)


def test_a_circle_through_a_function_is_found():
    sources = {
        "a": "from p import b",
        "p": "",
        "p.b": "def f():\n    import c",
        "c": "import a",
        "d": "from typing import TYPE_CHECKING\nimport a\nif TYPE_CHECKING:\n    import e",
        "e": "import d",
        "f": "import_module('g')",
        "g": "import f, d",
    }
    assert circles(import_graph(sources)) == [["a", "c", "p.b"], ["f", "g"]]
