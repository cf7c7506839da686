"""GET / and /page/...: the files of the page, nano_llama/server/page. They are the same for everybody and hold no
secrets, so they need no key; what the page asks for afterwards does.

The files are read once, when the application is made: a path is looked up among them, never on the disk. There is no
build step: what is sent compressed lacks comments and indentation, an eighth of it, and has the lines of the file.
Tests: tests/server/page/test_page_files.py.
"""

import gzip
import hashlib
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from nano_llama.server.auth import PAGE_PREFIX

FOLDER = Path(__file__).with_name("page")
INDEX, MAIN = "index.html", "main.js"
IMPORT = re.compile(r'^import [^"(]*"(.+)";', re.MULTILINE)  # not import(...): a view, for later
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
# Scripts, styles and requests of this server only, nothing inline, and no text that is read as HTML (Trusted Types):
# whatever a model, a template or a link says, it stays text.
POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data: blob:",
        "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
        "require-trusted-types-for 'script'", "trusted-types 'none'",
    )
)  # fmt: skip
HEADERS = {
    "content-security-policy": POLICY,
    "cache-control": "no-cache",  # ask each time: the answer is mostly 304
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "vary": "Accept-Encoding",
}


@dataclass(frozen=True)
class PageFile:
    """A file as it is, and compressed without comments; each form has a tag, by which a browser knows it again."""

    kind: str
    plain: bytes
    packed: bytes
    plain_tag: str
    packed_tag: str

    @classmethod
    def of(cls, path: Path) -> "PageFile":
        plain = path.read_bytes()
        lean = without_comments(plain.decode()).encode() if path.suffix in (".js", ".css") else plain
        packed = gzip.compress(lean, 9, mtime=0)
        return cls(TYPES[path.suffix], plain, packed, tag_of(plain), tag_of(packed))

    def response(self, request: Request) -> Response:
        """The file, or 304 for a browser that has this very one."""
        packed = "gzip" in request.headers.get("accept-encoding", "")
        body, tag = (self.packed, self.packed_tag) if packed else (self.plain, self.plain_tag)
        headers = {**HEADERS, "etag": tag, **({"content-encoding": "gzip"} if packed else {})}
        if tag in [given.strip().removeprefix("W/") for given in request.headers.get("if-none-match", "").split(",")]:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type=self.kind)


# Whole lines; and after code what begins with // and has no quote: of a text, the end would follow.
COMMENT_OR_INDENTATION = re.compile(
    r"^[ \t]*(?:/\*.*?\*/[ \t]*$|//[^\n]*)|^[ \t]+|[ \t]+// [^\"'`\n]*$", re.MULTILINE | re.DOTALL
)


def without_comments(source: str) -> str:
    """A script or style sheet whose statements stand on the lines where they stood; of ours no text spans lines."""
    return COMMENT_OR_INDENTATION.sub(lambda found: "\n" * found[0].count("\n"), source)


def tag_of(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


@cache
def read_page() -> Mapping[str, PageFile]:
    """Every file of the page by its path below the folder, such as "views/river.js"."""
    found = sorted(path for path in FOLDER.rglob("*") if path.suffix in TYPES)
    return {path.relative_to(FOLDER).as_posix(): PageFile.of(path) for path in found}


def modules_of(name: str) -> list[str]:
    """A script and all that it imports at once, and they."""
    found = [name]
    for script in found:
        imports = IMPORT.findall(read_page()[script].plain.decode())
        paths = [posixpath.normpath(posixpath.join(posixpath.dirname(script), path)) for path in imports]
        found.extend(path for path in dict.fromkeys(paths) if path not in found)
    return found


@cache
def preloads() -> str:
    """A Link header that names what the first view needs: else a browser learns of a module from another."""
    scripts = [f"<{PAGE_PREFIX[1:]}{name}>; rel=modulepreload" for name in modules_of(MAIN)]
    return ", ".join([f"<{PAGE_PREFIX[1:]}page.css>; rel=preload; as=style", *scripts])


async def page(request: Request) -> Response:
    name = request.path_params.get("path", INDEX)
    found = read_page().get(name)
    if found is None:
        raise HTTPException(404, f"The page has no file {name!r:.80}.")
    response = found.response(request)
    if name == INDEX:
        response.headers["link"] = preloads()
    return response


ROUTES = [Route("/", page), Route(PAGE_PREFIX + "{path:path}", page)]
