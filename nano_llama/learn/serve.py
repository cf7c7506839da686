"""The book's pages with a Run button beside every cell: the code runs in the learner's own Python, on this machine.

A server of the standard library on 127.0.0.1. Whoever may reach it may run code as this user, so it must be reached by
one browser only: every address begins with a token that is drawn anew each time, a request must name this host (a page
of another name that resolves to 127.0.0.1 does not), and a run must come from a page of this server (Origin). The pages
themselves are files of the built book; into each, a script is put that is not in them: run.js.

What runs has limits of time and memory, and is not a sandbox. Tests: tests/learn/test_serve.py.
"""

import json
import mimetypes
import secrets
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from nano_llama.core.errors import UserError
from nano_llama.core.limited_process import LimitedProcess, ProcessEnded

HOST = "127.0.0.1"
RUN_SECONDS = 60.0
RUN_MEMORY_BYTES = 4 * 2**30
MAX_REQUEST_BYTES = 2**20
IDLE_SECONDS = 30.0  # a connection that sends nothing for so long is closed
SCRIPT = Path(__file__).with_name("run.js")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' data:; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # a link out of the book does not carry the token
    "X-Content-Type-Options": "nosniff",
}


class BookServer(ThreadingHTTPServer):
    """Serves one built book. `url` is its first page, with the token; port 0: any that is free."""

    daemon_threads = True

    def __init__(self, site: Path, port: int = 0, run_seconds: float = RUN_SECONDS):
        if not (site / "index.html").is_file():
            raise UserError(
                f"There is no built book in {site}.", hint="Build it with  make book  or say where:  --book FOLDER"
            )
        self.site = site.resolve()
        self.run_seconds = run_seconds
        self.token = secrets.token_urlsafe(24)
        self.one_at_a_time = threading.Lock()
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or "it must be at most 65535"
            raise UserError(f"Port {port} cannot be used: {why}.", hint="Leave --port out.") from None

    @property
    def origin(self) -> str:
        return f"http://{HOST}:{self.server_port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/{self.token}/index.html"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is not an error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def run_cells(self, cells: list[dict[str, str]]) -> dict[str, Any]:
        """What the last of the cells prints, after those before it, in a fresh process."""
        setup = {"module": "nano_llama.learn.cells", "memory": RUN_MEMORY_BYTES, "seconds": self.run_seconds}
        with self.one_at_a_time:
            process = LimitedProcess(Path(__file__).with_name("worker.py"), setup, "A cell")
            try:
                return process.exchange({"cells": cells}, self.run_seconds)
            except ProcessEnded as ended:
                return {"printed": "", "error": _ended(ended), "picture": None}
            finally:
                process.popen.kill()
                process.popen.wait()


def _ended(ended: ProcessEnded) -> str:
    if ended.late:
        return f"Stopped after {ended.seconds:.0f} seconds."
    return f"The process ended (status {ended.status}): a crash, or more than {RUN_MEMORY_BYTES >> 30} GiB."


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, says: str):
        super().__init__(says)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: BookServer
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        self._answer(lambda: self._file(self._path()))

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._answer(self._run)

    def _answer(self, make: Any) -> None:
        try:
            kind, body = make()
            self._send(HTTPStatus.OK, kind, body)
        except _Refused as refused:
            self.close_connection = True  # a body that was not read is not taken for the next request
            self._send(refused.status, "text/plain; charset=utf-8", f"{refused}\n".encode())

    def _path(self) -> str:
        """The path below the token. Refuses other hosts, and paths without the token as if there were nothing."""
        if self.headers.get("Host") != f"{HOST}:{self.server.server_port}":
            raise _Refused(HTTPStatus.FORBIDDEN, "This server has another name.")
        token, _, path = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise _Refused(HTTPStatus.NOT_FOUND, "The address needs the token that  nano-llama learn --serve  printed.")
        return path

    def _file(self, path: str) -> tuple[str, bytes]:
        if path == SCRIPT.name:
            return "text/javascript; charset=utf-8", SCRIPT.read_bytes()
        try:
            file = (self.server.site / (path or "index.html")).resolve()
            there = file.is_relative_to(self.server.site) and file.is_file()
        except (ValueError, OSError):  # a zero byte, a name that is too long
            there = False
        if not there:
            raise _Refused(HTTPStatus.NOT_FOUND, "No such page.")
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        body = file.read_bytes()
        if kind == "text/html":
            script = f'<script src="/{self.server.token}/{SCRIPT.name}" defer></script>'
            body = body.replace(b"</body>", f"{script}</body>".encode(), 1)
        return kind + ("; charset=utf-8" if kind.startswith("text/") else ""), body

    def _run(self) -> tuple[str, bytes]:
        if self._path() != "run":
            raise _Refused(HTTPStatus.NOT_FOUND, "Nothing is posted there.")
        if self.headers.get("Origin") != self.server.origin:
            raise _Refused(HTTPStatus.FORBIDDEN, "Only the pages of this server may run code.")
        if self.headers.get_content_type() != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "JSON is expected.")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing.")
        if int(length) > MAX_REQUEST_BYTES:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"At most {MAX_REQUEST_BYTES:,} bytes are read.")
        try:
            cells = json.loads(self.rfile.read(int(length)))["cells"]
            cells = [{"name": str(cell["name"]), "code": str(cell["code"])} for cell in cells]
        except (ValueError, KeyError, TypeError, RecursionError):
            message = 'Expected {"cells": [{"name": ..., "code": ...}]}.'
            raise _Refused(HTTPStatus.BAD_REQUEST, message) from None
        return "application/json", json.dumps(self.server.run_cells(cells)).encode()

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, text in {"Content-Type": kind, "Content-Length": str(len(body)), **HEADERS}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the address in a log would show the token."""
