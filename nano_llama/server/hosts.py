"""Which names the server answers to, and which web pages may call it.

A browser sends whatever page is open to any server it can reach, also to one on this machine. Two checks keep pages
out: the Host header must be a name of ours, so that a foreign domain that suddenly points to this machine (DNS
rebinding) gets nowhere; and a POST that names its Origin must come from a page of ours. Programs send no Origin.
Tests: tests/server/test_hosts.py.
"""

import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from nano_llama.server.errors import ApiError

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
PREFLIGHT_SECONDS = "600"


def with_path(scope: Scope) -> Scope:
    """The request as one for a path and a Host, where its target is a whole URL: so clients ask proxies, and every
    server must understand it (RFC 9112, section 3.2.2).
    """
    if not scope["path"].lower().startswith(("http://", "https://")):
        return scope
    host, _, path = scope["path"].partition("://")[2].partition("/")
    headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
    headers.append((b"host", host.encode("latin-1", "replace")))
    return {**scope, "path": f"/{path}", "raw_path": f"/{path}".encode(), "headers": headers}


def check_host(request: Request, allowed: Sequence[str]) -> None:
    """Raise ApiError unless the Host header is a loopback name, an address (which no domain can be), this machine's
    name or an allowed one.
    """
    header = request.headers.get("host")
    if header is None or "*" in allowed:  # HTTP/1.0; browsers always send one
        return
    name = host_name(header)
    if name != "localhost" and not is_address(name) and name not in (*map(str.lower, allowed), own_name()):
        raise ApiError(
            403,
            f"This server is not called {header[:100]!r}. Start it with --allowed-host {name[:100]} if it is.",
            code="host_not_allowed",
        )


def check_origin(request: Request, allowed: Sequence[str]) -> None:
    """Raise ApiError for a request that changes something, from a page of another origin that is not allowed."""
    origin = request.headers.get("origin")
    if origin is None or request.method in SAFE_METHODS or is_allowed(origin, allowed):
        return
    if urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise _foreign(origin)


def _foreign(origin: str) -> ApiError:
    return ApiError(
        403,
        f"Pages from {origin[:100]!r} may not use this server. Start it with --cors-origin {origin[:100]} if so.",
        code="origin_not_allowed",
    )


def is_allowed(origin: str, allowed: Sequence[str]) -> bool:
    return "*" in allowed or origin.lower().rstrip("/") in [entry.lower().rstrip("/") for entry in allowed]


def cors_headers(request: Request, allowed: Sequence[str]) -> list[tuple[bytes, bytes]]:
    """What lets a page of an allowed origin read the answer; without such an origin nothing."""
    if not allowed:
        return []
    origin = request.headers.get("origin")
    if origin is None or not is_allowed(origin, allowed):
        return [(b"vary", b"Origin")]
    return [
        (b"access-control-allow-origin", b"*" if "*" in allowed else origin.encode("latin-1")),
        (b"access-control-expose-headers", b"x-request-id, retry-after"),
        (b"vary", b"Origin"),
    ]


def preflight(request: Request, allowed: Sequence[str]) -> Response | None:
    """The answer to a browser that asks before it sends a request of another origin; None: it is something else.

    It carries no key: this comes before keys are checked. Raises ApiError for an origin that is not allowed.
    """
    asked, origin = request.headers.get("access-control-request-method"), request.headers.get("origin")
    if request.method != "OPTIONS" or asked is None or origin is None:
        return None
    if not is_allowed(origin, allowed):
        raise _foreign(origin)
    headers = {
        "access-control-allow-methods": "GET, POST",
        "access-control-allow-headers": request.headers.get("access-control-request-headers", "authorization"),
        "access-control-max-age": PREFLIGHT_SECONDS,
    }
    return Response(status_code=204, headers=headers)


def host_name(header: str) -> str:
    """ "Example.com:8000" -> "example.com"; "[::1]:8000" -> "::1"."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0].lower() if ":" in header else header.lower()


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def own_name() -> str:
    return socket.gethostname().lower()


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can reach a server that listens there."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)
