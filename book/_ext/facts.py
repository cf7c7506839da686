"""What each page says that the whole book wants to know: kept in Sphinx's environment by page, so that pages are read
again one by one. Also: a hash of all that a page depends on besides itself, which has every page read again.

Tests: tests/book/test_build.py.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import SphinxError

ROOT = Path(__file__).parents[2]  # of the repository: pages quote and run the package that stands beside them


class BookError(SphinxError):
    """What ends the build: something that a chapter says does not hold."""

    category = "The book"


def add(env: BuildEnvironment, kind: str, fact: Any) -> None:
    """Note a fact of the page that is being read."""
    _all(env).setdefault(kind, {}).setdefault(env.docname, []).append(fact)


def of(env: BuildEnvironment, kind: str) -> Iterator[tuple[str, Any]]:
    """(page, fact) of every page, in the order of their names."""
    for page, facts in sorted(_all(env).get(kind, {}).items()):
        for fact in facts:
            yield page, fact


def surroundings(source: Path) -> str:
    """A hash of the package, of the extensions, and of the book's data: everything but the pages."""
    files = [*(ROOT / "nano_llama").rglob("*"), *(source / "_ext").rglob("*.py"), *source.glob("*.json")]
    files += [*(source / "results").glob("*.json"), *(ROOT / "book" / "_ext").rglob("*.py")]
    digest = hashlib.sha256()
    for file in sorted({file for file in files if file.is_file() and "__pycache__" not in file.parts}):
        digest.update(str(file).encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _all(env: BuildEnvironment) -> dict[str, dict[str, list[Any]]]:
    if not hasattr(env, "book_facts"):
        env.book_facts = {}
    return env.book_facts


def _purge(app: Sphinx, env: BuildEnvironment, page: str) -> None:
    for pages in _all(env).values():
        pages.pop(page, None)


def _outdated(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    now, before = surroundings(Path(app.srcdir)), getattr(env, "book_surroundings", None)
    env.book_surroundings = now
    return [] if now == before else list(env.found_docs)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("env-purge-doc", _purge)
    app.connect("env-get-outdated", _outdated)
    return {"version": "1", "parallel_read_safe": False}
