"""Books of a page or two, built by the configuration of book/conf.py, and the book itself, built once."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the extra `book` is not installed")

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Built:
    """A build that has ended, well or not."""

    code: int
    said: str
    site: Path

    def page(self, name: str) -> str:
        return (self.site / f"{name}.html").read_text()


def sphinx(source: Path, out: Path, *options: str, path: str | None = None) -> Built:
    """Build `source` with book/conf.py; warnings end the build, as in `make book`."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path is not None:
        environment["PATH"] = path
    command = [sys.executable, "-m", "sphinx", "-W", "-c", str(ROOT / "book"), "-d", str(out / "doctrees"), *options]
    done = subprocess.run([*command, str(source), str(out / "html")], capture_output=True, text=True, env=environment)
    return Built(done.returncode, done.stdout + done.stderr, out / "html")


@pytest.fixture
def book(tmp_path):
    """book({"chapters/x": text}, option...) -> Built. A second call builds what has changed."""
    source = tmp_path / "source"

    def build(pages: dict[str, str], *options: str) -> Built:
        for name, text in {"index": toctree(pages), **pages}.items():
            file = source / (name if "." in name else f"{name}.md")
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists() or file.read_text() != text:  # Sphinx goes by the time of a change
                file.write_text(text)
        return sphinx(source, tmp_path / "out", "-D", "html_theme=basic", "-D", "book_covers=", *options)

    return build


def toctree(pages: dict[str, str]) -> str:
    names = "\n".join(name for name in pages if "." not in name)
    return f"# A book\n\n```{{toctree}}\n:numbered:\n\n{names}\n```\n"


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Built:
    """The book, from nothing, by a PATH on which there is no Node."""
    out = tmp_path_factory.mktemp("book")
    return sphinx(ROOT / "book", out, path=str(Path(sys.executable).parent))
