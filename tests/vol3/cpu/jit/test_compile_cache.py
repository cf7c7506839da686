"""The folder of compiled kernels: made once, found again, another one for other sources."""

import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from nano_llama.vol3_engine.cpu.jit import compile_cache


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NANO_LLAMA_CACHE", str(tmp_path / "cache"))


def double(x):
    return x + x


def test_a_function_is_compiled_once_and_found_again():
    for hits in (0, 1):
        function = njit(double)
        folder = compile_cache.keep_on_disk(function)
        assert function(np.float32(2)) == 4
        assert sum(function.stats.cache_hits.values()) == hits
    assert any(folder.glob("*.nbi"))


def kernel_of(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "times.py").write_text(text)
    return njit(runpy.run_path(str(folder / "times.py"))["times"])


def test_another_clone_of_the_same_sources_hits_the_cache(tmp_path):
    found = []
    for clone in ("first", "second"):
        function = kernel_of(tmp_path / clone, "def times(x):\n    return 3 * x\n")
        compile_cache.keep_on_disk(function)
        assert function(5) == 15
        found.append(sum(function.stats.cache_hits.values()))
    assert found == [0, 1]


def test_an_edited_function_is_compiled_again(tmp_path):
    for factor in (7, 8):  # another constant leaves the bytecode as it is
        function = kernel_of(tmp_path / "clone", f"def times(x):\n    return {factor} * x\n")
        compile_cache.keep_on_disk(function)
        assert function(5) == 5 * factor


def test_other_sources_have_another_folder(tmp_path, monkeypatch):
    """Whichever folder of cpu/ a source is in: otherwise machine code that calls it would be stale."""
    monkeypatch.setattr(compile_cache, "SOURCES", tmp_path)
    (tmp_path / "simd").mkdir()
    seen = {compile_cache.kernel_folder()}
    for source, text in (("kernel.py", "a = 1"), ("kernel.py", "a = 2"), ("simd/add.py", "b"), ("simd/add.py", "c")):
        (tmp_path / source).write_text(text)
        seen.add(compile_cache.kernel_folder())
    (tmp_path / "simd/add.py").rename(tmp_path / "simd/sub.py")
    seen.add(compile_cache.kernel_folder())
    monkeypatch.setattr(compile_cache, "CONSTANTS", (tmp_path / "kernel.py",))
    seen.add(compile_cache.kernel_folder())
    assert len(seen) == 7


def test_the_hash_covers_every_folder_of_kernels_and_the_numbers_of_the_kinds():
    assert {path.name for path in compile_cache.SOURCES.iterdir()} >= {"jit", "simd", "kernels"}
    assert [path.name for path in compile_cache.CONSTANTS] == ["kinds.py"]


def test_old_folders_are_deleted(tmp_path):
    kernels = tmp_path / "cache" / "kernels"
    for number in range(9):
        (kernels / str(number)).mkdir(parents=True)
    compile_cache.keep_on_disk()
    assert len(list(kernels.iterdir())) == compile_cache.MAX_OTHER_FOLDERS


def test_an_unwritable_cache_still_compiles(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NANO_LLAMA_CACHE", str(tmp_path / "file"))
    function = njit(double)
    compile_cache.keep_on_disk(function)
    with compile_cache.compiling(tmp_path / "file" / "folder", "double"):
        assert function(3) == 6


def test_compiling_is_told_where_there_is_no_terminal(tmp_path, caplog):
    for kernels in ("first", "second"):
        with compile_cache.compiling(tmp_path, kernels):
            assert caplog.text.count("Compiling kernels for this CPU, once") == 1, "not once for each kind of kernel"
    caplog.clear()
    with compile_cache.compiling(tmp_path, "first"):
        assert caplog.text == "", "they are there"


UNWRITABLE = """
import ctypes
import os
import struct
from nano_llama.vol3_engine.cpu.jit import compile_cache

if os.getuid() == 0:  # could write anywhere: gives up its capabilities, and still reads a closed checkout of its own
    header, no_capabilities = struct.pack("Ii", 0x20080522, 0), bytes(24)
    assert ctypes.CDLL(None).capset(header, no_capabilities) == 0
folder = compile_cache.keep_on_disk()
for kernels in ("repack", "step", "step"):
    with compile_cache.compiling(folder, kernels):
        pass
"""


@pytest.mark.parametrize("mode", [0o555, 0o000], ids=["read-only", "closed"])
def test_a_cache_that_cannot_be_written_is_told_once_with_what_to_do(mode):
    """In a fresh process with such a home folder: each start compiles, and says so in one line."""
    with tempfile.TemporaryDirectory() as home:  # pytest's folders are closed to other users
        environment = {**os.environ, "HOME": home, "PYTHONDONTWRITEBYTECODE": "1"}
        for name in ("NANO_LLAMA_CACHE", "XDG_CACHE_HOME"):
            environment.pop(name, None)
        Path(home).chmod(mode)
        done = subprocess.run([sys.executable, "-c", UNWRITABLE], env=environment, capture_output=True, text=True)
        Path(home).chmod(0o700)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert f"at every start (about half a minute): {home}/.cache" in line and "NANO_LLAMA_CACHE" in line
