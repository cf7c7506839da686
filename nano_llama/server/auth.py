"""API keys: read once, kept as SHA-256 digests, compared in constant time. Every path needs one, but for OPEN_PATHS
and the files of the page.

Tests: tests/server/test_auth.py.
"""

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from starlette.requests import Request

from nano_llama.core.env import API_KEY_VARIABLE, api_key
from nano_llama.core.errors import UserError
from nano_llama.server.errors import ApiError

# A path that is added later is guarded unless it is named here, or below the folder of the page's files.
OPEN_PATHS, PAGE_PREFIX = ("/", "/health"), "/page/"


def read_keys(file: Path | None) -> tuple[bytes, ...]:
    """The digests of the keys in a file, one per line, or of the one in the environment. (): there is none.

    Raises UserError for a file without keys, and for a key that no client can send.
    """
    if file is None:
        key = api_key()
        return () if key is None else (digest_of(checked(key, f"the environment variable {API_KEY_VARIABLE}")),)
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    keys = [checked(line, f"{file}") for line in lines if line and not line.startswith("#")]
    if not keys:
        raise UserError(f"{file} holds no API key.", hint="Write one key per line; # begins a remark.")
    return tuple(map(digest_of, keys))


def checked(key: str, where: str) -> str:
    """The key, if an Authorization header can carry it. (The error does not show it.)"""
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(f"A key in {where} has a character that is not printable ASCII.", hint="Use letters, digits.")
    return key


def digest_of(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def check_key(request: Request, digests: Sequence[bytes]) -> None:
    """Raise ApiError 401 unless the request carries a key, or needs none. Notes whose it is in request.state."""
    path = request.scope["path"]
    if not digests or path in OPEN_PATHS or path.startswith(PAGE_PREFIX):
        return
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise _unauthorized("No API key: send the header  Authorization: Bearer KEY")
    given = hashlib.sha256(key.strip().encode("latin-1")).digest()
    known = False
    for digest in digests:  # all of them, so that the time says nothing
        known |= hmac.compare_digest(given, digest)
    if not known:
        raise _unauthorized("This API key is not known here.")
    request.state.key_digest = given.hex()


def _unauthorized(message: str) -> ApiError:
    return ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
