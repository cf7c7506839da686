"""Compiled kernels on disk: compiled once per CPU, and again only when their source changes.

Numba's own cache looks at one file and its path, and misses an edit in a module that it calls. So each version of the
kernels has a folder of its own, named by the hash of all sources in cpu/, the instruction set and Numba's version: a
second clone, or a wheel, of the same sources finds what the first has compiled.
Tests: tests/vol3/cpu/jit/test_compile_cache.py.
"""

import hashlib
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.runtime import rtsys

from nano_llama.core import env
from nano_llama.formats import kinds
from nano_llama.vol3_engine.cpu.isa import selected_isa

SOURCES = Path(__file__).parents[1]  # cpu/: kernels are inlined into one another across its folders
CONSTANTS = (Path(kinds.__file__),)  # sources outside, whose numbers are constants in compiled code
MAX_OTHER_FOLDERS = 6  # of other instruction sets and checkouts; older ones are deleted


def kernel_folder() -> Path:
    """Where this version of the kernels is stored."""
    digest = hashlib.sha256()
    for part in (numba.__version__, llvmlite.__version__, selected_isa()):
        digest.update(part.encode() + b"\0")
    for source in sorted(SOURCES.rglob("*.py")):
        digest.update(source.relative_to(SOURCES).as_posix().encode() + b"\0" + source.read_bytes())
    for source in CONSTANTS:
        digest.update(source.read_bytes())
    return env.cache_dir() / "kernels" / f"{selected_isa()}-{digest.hexdigest()[:16]}"


def keep_on_disk(*functions: Any) -> Path:
    """From now on load these compiled functions from the folder, or compile them and save them there -> the folder.

    If it cannot be written, they are compiled every time.
    """
    folder = kernel_folder()
    if not _is_there(folder):
        _delete_oldest(folder.parent)
    with suppress(RuntimeError, OSError):
        for function in functions:
            function._cache = _FolderCache(function.py_func)  # what Numba's enable_caching does with a cache of its own
    return folder


class _InFolder(_CacheLocator):
    """Tells Numba to store a function in our folder, whatever the path of its source."""

    def __init__(self, function: Any, source: str):
        self._py_file, self._line, self._folder = source, function.__code__.co_firstlineno, kernel_folder()

    @classmethod
    def from_function(cls, function: Any, source: str) -> "_InFolder":
        place = cls(function, source)
        place.ensure_cache_path()
        return place

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return hashlib.sha256(Path(self._py_file).read_bytes()).hexdigest()

    def get_disambiguator(self) -> str:
        return str(self._line)


class _FolderFiles(CompileResultCacheImpl):
    _locator_classes = (_InFolder,)


class _FolderCache(FunctionCache):
    _impl_class = _FolderFiles

    def load_overload(self, signature, target):
        """Numba's, without loading all that compiling needs, which takes a quarter of a second."""
        rtsys.initialize(target)  # what machine code calls to take arrays from Python
        with self._guard_against_spurious_io_errors():
            return self._load_overload(signature, target)


@contextmanager
def compiling(folder: Path, what: str) -> Iterator[None]:
    """Around the first call of kernels: says so if they must be compiled, on a terminal or in the log (by default
    stderr, in a notebook too), and whether that will be so at every start.

    A model's first answer comes here twice, for its weights and for its steps; the log is told once.
    """
    marker = folder / f"{what}.done"
    if _is_there(marker):
        yield
        return
    message = "Compiling kernels for this CPU, once (about half a minute) ..."
    if not _can_be_written(folder):
        message = (
            f"Compiling kernels for this CPU at every start (about half a minute): {folder} cannot be written."
            " NANO_LLAMA_CACHE names another folder."
        )
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status(message):
            yield
    else:
        _log_once(message, folder)
        yield
    with suppress(OSError):
        marker.touch()


@cache
def _log_once(message: str, folder: Path) -> None:
    """What is logged of a folder, once in a process."""
    logging.getLogger(__name__).warning(message)


def _is_there(path: Path) -> bool:
    with suppress(OSError):  # a folder of another user is in the way
        return path.exists()
    return False


def _can_be_written(folder: Path) -> bool:
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        return os.access(folder, os.W_OK)
    return False


def _delete_oldest(parent: Path) -> None:
    with suppress(OSError):
        by_age = sorted((path for path in parent.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
        for path in by_age[:-MAX_OTHER_FOLDERS]:
            shutil.rmtree(path, ignore_errors=True)
