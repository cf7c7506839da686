"""The rules of the house that a machine can check: file sizes, headers, README's tree, nothing of one machine."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXERCISES = (
    ROOT / "nano_llama" / "learn" / "exercises"
)  # what learners read and write: `learn dev check` has their rules
MODULES = [path for path in sorted((ROOT / "nano_llama").rglob("*.py")) if not path.is_relative_to(EXERCISES)]
SOURCES = [*MODULES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "bench").rglob("*.py"))]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tracked() -> list[Path]:
    try:
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in listing.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_files_stay_under_500_lines():
    long = {relative(path): lines for path in SOURCES if (lines := len(path.read_text().splitlines())) > 500}
    assert not long


def test_every_module_has_a_header_that_names_its_test():
    """That the test exists is checked with all other paths, in test_pointers.py."""
    headers = {relative(path): ast.get_docstring(ast.parse(path.read_text())) or "" for path in MODULES}
    assert not [path for path, header in headers.items() if not re.search(r"tests/[\w/]+", header)]


def classes() -> list[tuple[str, ast.ClassDef]]:
    """(file, class) of every class of the package."""
    found = []
    for path in MODULES:
        nodes = ast.walk(ast.parse(path.read_text()))
        found += [(relative(path), node) for node in nodes if isinstance(node, ast.ClassDef)]
    return found


def methods(node: ast.ClassDef) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    return {part.name: part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_classes_stay_under_250_lines_and_25_methods():
    large = [
        f"{path}: {node.name}, {lines} lines, {len(methods(node))} methods"
        for path, node in classes()
        if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > 250 or len(methods(node)) > 25
    ]
    assert not large


def constructors_that_call_overridden(everything: list[tuple[Path, ast.ClassDef]]) -> list[str]:
    """Classes are found by name, and subclasses of subclasses count. A class may have the name of its base."""
    subclasses: dict[str, list[ast.ClassDef]] = {}
    for _, node in everything:
        for base in node.bases:
            subclasses.setdefault(ast.unparse(base).split("[")[0].split(".")[-1], []).append(node)
    offenders = []
    for path, node in everything:
        below, seen, overridden = [node], [node], set()
        while below:
            children = [child for child in subclasses.get(below.pop().name, []) if child not in seen]
            overridden |= {name for child in children for name in methods(child)}
            below += children
            seen += children
        constructor = methods(node).get("__init__")
        called = {
            call.func.attr
            for call in (ast.walk(constructor) if constructor else ())
            if isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and isinstance(call.func.value, ast.Name)
            and call.func.value.id == "self"
        }
        offenders += [f"{path}: {node.name}.__init__ calls {name}" for name in sorted(called & overridden)]
    return offenders


def test_no_constructor_calls_a_method_that_a_subclass_overrides():
    """The subclass would run before it is made."""
    assert not constructors_that_call_overridden(classes())


def test_a_class_with_the_name_of_its_base():
    source = """
class Reader:
    def __init__(self): self.read()
    def read(self): pass
class Reader(base.Reader):
    def close(self): pass
class Quick(Reader):
    def read(self): pass
class Other:
    def __init__(self): self.read()
    def read(self): pass
class Other(base.Other): pass
"""
    found = [(Path("m.py"), node) for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    assert constructors_that_call_overridden(found) == ["m.py: Reader.__init__ calls read"]


def test_readme_shows_the_tree_as_it_is():
    """Every folder and file that the README's tree names exists; every package room and top-level file is named."""
    block = re.search(r"```\n(nano_llama/.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert block, "README.md shows no tree"
    shown, stack = set(), []
    for line in block.group(1).splitlines():
        if not line.strip():
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        stack[depth:] = [name]
        shown.add("".join(stack[: depth + 1]).rstrip("/"))
    missing = [name for name in shown if not (ROOT / name).exists()]
    assert not missing, f"README names what is not there: {missing}"
    package = ROOT / "nano_llama"
    rooms = {relative(path) for path in [*package.iterdir(), *package.glob("*/*")] if any(path.glob("*.py"))}
    rooms |= {name for name in ("tests", "bench", "dev", "book") if (ROOT / name).exists()}
    assert not rooms - shown, f"README's tree lacks {sorted(rooms - shown)}"


def test_nothing_names_one_machine_or_a_registry():
    pattern = re.compile(rb"/work/|/root/|/opt/pypi|registry\.npmjs|pypi\.org|files\.pythonhosted|deb\.debian")
    here = Path(__file__)
    offenders = [relative(p) for p in tracked() if p != here and pattern.search(p.read_bytes())]
    assert not offenders


def test_tests_of_many_processes_lie_where_make_parallel_looks_for_them():
    marked = [path for path in SOURCES if re.search(r"mark\.parallel\b", path.read_text())]
    assert marked and {path.parent for path in marked} == {ROOT / "tests" / "parallel"}


def test_environment_variables_are_read_in_one_place():
    allowed = {"nano_llama/core/env.py"}
    offenders = [
        relative(path)
        for path in MODULES
        if relative(path) not in allowed and re.search(r"os\.environ|os\.getenv|\bgetenv\(", path.read_text())
    ]
    assert not offenders
