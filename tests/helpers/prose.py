"""What people read in the repository: the comments, docstrings and messages of sources, and pages."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("nano_llama", "tests", "bench", "recipes", "book")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def texts(path: Path) -> Iterator[str]:
    """What people read in a file: of a page all but the tree, of a source its comments, docstrings and messages.

    The strings of tests and benchmarks are data, so only their docstrings and comments count.
    """
    content = path.read_text()
    if path.suffix != ".py":
        content = re.sub(r"```\n(nano_llama/.*?)```", "", content, flags=re.S)  # layout/test_house_rules.py checks it
        yield re.sub(r"\[`.*?`\]", "", content)  # of a link its target
        return
    for token in tokenize.generate_tokens(io.StringIO(content).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    tree = ast.parse(content)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    yield from (ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, documented))
    if path.is_relative_to(ROOT / "nano_llama"):
        strings = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        yield from (value for value in strings if isinstance(value, str) and " " in value)
