"""The finished site holds together: every link and anchor leads somewhere, and nothing is loaded from outside.

Links out of the site are text to click, and stay; what a page loads by itself (scripts, styles, pictures, fonts) must
lie in the site. Tests: tests/book/test_site.py.
"""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging

from .facts import BookError

log = logging.getLogger(__name__)
LOADS = {("link", "href"), ("script", "src"), ("img", "src"), ("source", "src"), ("iframe", "src"), ("object", "data")}
IN_STYLES = re.compile(r"@import\s+[\"']?([^\"';)]+)|url\(\s*[\"']?([^\"')]+)")


class Page(HTMLParser):
    """The anchors of a page, where its links lead, and what it loads."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = {"", "top"}
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, text in attrs:
            if text is None:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(text)
            elif (tag, name) in LOADS:
                self.loads.append(text)
            elif name == "style":
                self.loads += styles(text)
            elif (tag, name) == ("a", "href"):
                self.links.append(text)


def styles(text: str) -> list[str]:
    """What a style sheet loads."""
    return [a or b for a, b in IN_STYLES.findall(text) if not (a or b).startswith(("data:", "#"))]


def problems(site: Path) -> list[str]:
    """Everything that is broken, or from outside, in the files of a site."""
    pages = {file: Page(file.read_text(encoding="utf-8")) for file in sorted(site.rglob("*.html"))}
    found = []
    for file, page in pages.items():
        name = file.relative_to(site)
        for address in page.loads:
            found += [f"{name} loads {address}"] if is_outside(address) else _broken(file, address, {})
        for address in page.links:
            found += [] if is_outside(address) else _broken(file, address, pages)
    for file in sorted(site.rglob("*.css")):
        for address in styles(file.read_text(encoding="utf-8")):
            found += [f"{file.name} loads {address}"] if is_outside(address) else _broken(file, address, {})
    return found


def is_outside(address: str) -> bool:
    return bool(urlsplit(address).scheme or address.startswith("//"))


def _broken(file: Path, address: str, pages: dict[Path, Page]) -> list[str]:
    parts = urlsplit(address)
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if not target.exists():
        return [f"{file.name} leads to {address}, which is not there"]
    if target in pages and unquote(parts.fragment) not in pages[target].anchors:
        return [f"{file.name} leads to {address}, which has no such anchor"]
    return []


def _check(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        found = problems(Path(app.outdir).resolve())
        if found:
            raise BookError(f"The site has {len(found)} broken links or outside addresses:\n" + "\n".join(found[:20]))
        log.info("links and anchors: all lead somewhere; nothing is loaded from outside")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("build-finished", _check)
    return {"version": "1", "parallel_read_safe": False}
