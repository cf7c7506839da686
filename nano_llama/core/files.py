"""JSON read within bounds, and files written atomically: a kill at any moment loses nothing.

Tests: tests/core/test_files.py.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nano_llama.core.errors import EnvironmentFault, FormatError, UserError

MAX_JSON_BYTES = 64 * 2**20  # a tokenizer.json of 256k tokens takes about 35 MB


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block succeeds, flush it to disk and rename it into place.

    A reader sees the old file or the new one, never a part. When the block fails, the temporary is removed.
    """
    path = Path(path)
    _make_folder_of(path)
    temporary = _temporary_name(path)
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; when the block succeeds, rename it to `path`, which must not exist."""
    path = Path(path)
    if path.exists():
        raise UserError(f"{path} already exists.", hint="Choose another path, or remove it first.")
    _make_folder_of(path)
    temporary = _temporary_name(path)
    try:
        temporary.mkdir()
        yield temporary
        for file in sorted(temporary.rglob("*")):
            _flush_folder(file) if file.is_dir() else flush(file)
        temporary.rename(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_folder(folder: str | Path) -> None:
    """Raise UserError or EnvironmentFault where a folder cannot be made or written to: before minutes of work."""
    there = next(one for one in (Path(folder), *Path(folder).absolute().parents) if one.exists())
    if not there.is_dir():
        raise UserError(f"Cannot write {folder}: {there.name} is a file, not a folder.", hint="Choose another --out.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise EnvironmentFault(
            f"Cannot write {folder}: you have no permission to write in {there}.", hint="Choose another --out."
        )


def write_text(path: str | Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON. NaN and infinity are refused: JSON cannot represent them."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path, what: str = "JSON file", max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Parse a JSON file. Raises UserError where it cannot be opened, FormatError where it is too large or not JSON."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise FormatError(f"{path}: a {what} of {size:,} bytes; at most {max_bytes:,} are read.")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"Cannot read {path}: {error.strerror or error}.", hint=f"A {what} was expected there."
        ) from error
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise FormatError(
            f"{path}: not a valid {what} ({error}).", hint="Is it another file, or damaged? Supply it again."
        ) from error


def _make_folder_of(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _temporary_name(path: Path) -> Path:
    """A new name beside `path`."""
    return path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"


def flush(path: Path) -> None:
    """Flush a file's content to disk."""
    handle = os.open(path, os.O_RDWR)  # Windows flushes only what may be written to
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_folder(path: Path) -> None:
    """Flush a folder's list of names to disk."""
    with suppress(PermissionError):  # Windows cannot open a folder, and needs no flush
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _cannot_write(path: Path, error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        f"Cannot write {path}: {error.strerror or error}.", hint="Check the free space and your permissions there."
    )
