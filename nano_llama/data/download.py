"""Fetch one file over HTTP: resumed after an interruption, checked, and put in place whole or not at all.

Not here: models (formats/hub.py). Tests: tests/data/test_download.py.

The bytes gather in `NAME.part`; a second try asks the server for the rest (Range). If the server sends the
whole file instead, that is used. If a resumed file fails its check, the server's file has changed: it is fetched again.
"""

import errno
import hashlib
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from nano_llama.core.env import offline
from nano_llama.core.errors import EnvironmentFault, FormatError
from nano_llama.core.files import flush
from nano_llama.core.version import VERSION
from nano_llama.data.lock import exclusive

# progress(what, done, total): bytes so far of `total`, which is None if unknown.
Progress = Callable[[str, int, int | None], None]
Check = Callable[[Path], None]  # raises FormatError when the file is not what it should be

_DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EFBIG)
CHUNK_BYTES = 256 * 1024
ATTEMPTS = 3


def download(
    url: str,
    path: Path,
    check: Check,
    *,
    what: str,
    instead: str = "",
    progress: Progress | None = None,
    max_bytes: int = 2**31,
    timeout_s: float = 30.0,
) -> Path:
    """Make sure that `path` holds the file at `url`; a file that is already there is returned untouched.

    `what` names the file in messages, `instead` says what to do without a network, `check(file)` validates the content.
    Raises EnvironmentFault (offline, unreachable, refused, repeatedly cut off, too large) and FormatError (the content
    fails `check`; the file is then removed).
    """
    if path.exists():
        return path
    if offline():
        raise EnvironmentFault(
            f"{what} is not on this machine yet ({path}), and network access is disabled (NANO_LLAMA_OFFLINE).",
            hint=instead or "Unset NANO_LLAMA_OFFLINE for one run.",
        )
    with exclusive(path.with_name(path.name + ".lock"), what=f"downloading {what}"):
        if path.exists():  # another process fetched it meanwhile
            return path
        part = path.with_name(path.name + ".part")
        resumed = part.exists() and part.stat().st_size > 0
        _fetch(url, part, what, instead, progress, max_bytes, timeout_s)
        try:
            check(part)
        except FormatError:
            part.unlink(missing_ok=True)
            if not resumed:
                raise
            _fetch(url, part, what, instead, progress, max_bytes, timeout_s)
            try:
                check(part)
            except FormatError:
                part.unlink(missing_ok=True)
                raise
        flush(part)
        part.replace(path)
        return path


def check_sha256(expected: str) -> Check:
    """A check that the file's SHA-256 is `expected` (hex)."""

    def check(path: Path) -> None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise FormatError(
                f"{path.name}: the downloaded file has SHA-256 {found}, not the expected {expected}.",
                hint="The server sent something else, or it was changed in transit. Try again, or use another network.",
            )

    return check


def _fetch(
    url: str, part: Path, what: str, instead: str, progress: Progress | None, max_bytes: int, timeout_s: float
) -> None:
    """Download `part` to the full length that the server announces, in at most ATTEMPTS connections."""
    trouble: Exception | str = ""
    for _ in range(ATTEMPTS):
        try:
            if _fetch_once(url, part, what, progress, max_bytes, timeout_s):
                return
            trouble = f"the connection closed after {part.stat().st_size:,} bytes"
        except HTTPError as error:
            if error.code == 416 and part.exists():  # our part has the file's length or more: let the check decide
                return
            trouble = f"the server answered {error.code} {error.reason}"
            if error.code < 500:
                break
        except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
            trouble = getattr(error, "reason", None) or error
        except OSError as error:
            if error.errno in _DISK_TROUBLE:
                raise EnvironmentFault(
                    f"Cannot write {part}: {error.strerror}.", hint="Check the free space and your permissions there."
                ) from error
            trouble = error
        except ValueError as error:  # what urlopen raises for an address it cannot parse
            trouble = error
            break
    raise EnvironmentFault(
        f"Cannot download {what} from {url}: {trouble}.",
        hint=instead or "Run it again: what has arrived is kept, and the download resumes from there.",
    )


def _fetch_once(url: str, part: Path, what: str, progress: Progress | None, max_bytes: int, timeout_s: float) -> bool:
    """One connection. True if the server sent all it announced; what arrived is in `part` in either case."""
    done = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"User-Agent": f"nano-llama-engine/{VERSION}", "Accept-Encoding": "identity"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    with urlopen(request, timeout=timeout_s) as response:
        if response.status != 206 or not _starts_at(response, done):
            done = 0  # the server sends the whole file, whatever we asked for
        length = response.headers.get("Content-Length")
        total = done + int(length) if length and length.isdigit() else None
        with part.open("ab" if done else "wb") as file:
            while chunk := response.read(CHUNK_BYTES):
                done += len(chunk)
                if done > max_bytes:
                    raise EnvironmentFault(f"{what} from {url} is larger than {max_bytes:,} bytes; stopped.")
                file.write(chunk)
                if progress:
                    progress(f"downloading {what}", done, total)
    return total is None or done >= total


def _starts_at(response: HTTPResponse, position: int) -> bool:
    """Does a 206 response begin at the byte we asked for?  Content-Range: bytes 100-199/200"""
    return response.headers.get("Content-Range", "").strip().lower().startswith(f"bytes {position}-")
