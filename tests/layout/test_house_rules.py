"""The rules of the house that a machine can check: file sizes, headers, README's tree, nothing of one machine."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "nano_llama").rglob("*.py"))
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
    rooms |= {name for name in ("tests", "bench", "dev") if (ROOT / name).exists()}
    assert not rooms - shown, f"README's tree lacks {sorted(rooms - shown)}"


def test_nothing_names_one_machine_or_a_registry():
    pattern = re.compile(rb"/work/|/root/|/opt/pypi|registry\.npmjs|pypi\.org|files\.pythonhosted|deb\.debian")
    here = Path(__file__)
    offenders = [relative(p) for p in tracked() if p != here and pattern.search(p.read_bytes())]
    assert not offenders


def test_environment_variables_are_read_in_one_place():
    allowed = {"nano_llama/core/env.py"}
    offenders = [
        relative(path)
        for path in MODULES
        if relative(path) not in allowed and re.search(r"os\.environ|os\.getenv|\bgetenv\(", path.read_text())
    ]
    assert not offenders
