"""One process at a time: a lock file that the operating system releases when its holder dies, by kill -9 too.

A network file system may ignore it, so it does not lock between machines. Tests: tests/data/test_lock.py.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nano_llama.core.errors import EnvironmentFault

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def exclusive(path: Path, wait_s: float = 3600.0, what: str = "this work") -> Iterator[None]:
    """Hold the lock file `path` (made if missing) for the length of the block; wait up to `wait_s` seconds for it.

    The holder may remove the file, with the folder around it: whoever waited then makes a new one.
    Raises EnvironmentFault when the wait times out, or the folder cannot be written.
    """
    deadline = time.monotonic() + wait_s
    while (handle := _try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise EnvironmentFault(
                f"Another process has held {path} for {wait_s:.0f} s.",
                hint=f"Wait for it to finish {what}, or stop it.",
            )
        time.sleep(0.05)
    try:
        yield
    finally:
        os.close(handle)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock file now. Creates nothing and does not wait."""
    if not os.access(path, os.W_OK):
        return False  # missing, or another user's, whose locks we cannot query
    handle = _try_lock(path)
    if handle is not None:
        os.close(handle)
    return handle is None


def _try_lock(path: Path) -> int | None:
    """An open handle that owns the lock, or None while another process does."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:  # the folder was renamed between the two calls
        return None
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        # The last holder may have removed the file we opened: a lock on it would exclude no one.
        if os.path.samestat(os.fstat(handle), path.stat()):
            return handle
    except OSError:
        pass
    os.close(handle)
    return None


def _cannot_write(path: Path, error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        f"Cannot write {path}: {error.strerror or error}.", hint="Check the free space and your permissions there."
    )
