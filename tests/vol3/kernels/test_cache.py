"""The folder of compiled kernels: made once, found again, another one for other sources."""

import runpy

import numpy as np
from numba import njit

from nano_llama.vol3_engine.kernels import cache


def double(x):
    return x + x


def test_a_function_is_compiled_once_and_found_again():
    for hits in (0, 1):
        function = njit(double)
        folder = cache.keep_on_disk(function)
        assert function(np.float32(2)) == 4
        assert sum(function.stats.cache_hits.values()) == hits
    assert any(folder.glob("*.nbi"))


def kernel_of(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "times.py").write_text(text)
    return njit(runpy.run_path(str(folder / "times.py"))["times"])


def test_another_clone_of_the_same_sources_finds_it(tmp_path):
    found = []
    for clone in ("first", "second"):
        function = kernel_of(tmp_path / clone, "def times(x):\n    return 3 * x\n")
        cache.keep_on_disk(function)
        assert function(5) == 15
        found.append(sum(function.stats.cache_hits.values()))
    assert found == [0, 1]


def test_an_edited_function_is_compiled_again(tmp_path):
    for factor in (7, 8):  # another constant leaves the bytecode as it is
        function = kernel_of(tmp_path / "clone", f"def times(x):\n    return {factor} * x\n")
        cache.keep_on_disk(function)
        assert function(5) == 5 * factor


def test_other_sources_have_another_folder(tmp_path, monkeypatch):
    for text in ("a = 1", "a = 2"):
        (tmp_path / "kernel.py").write_text(text)
        monkeypatch.setattr(cache, "__file__", str(tmp_path / "cache.py"))
        (tmp_path / text).mkdir()
        (tmp_path / text / cache.kernel_folder().name).touch()
    first, second = (next((tmp_path / text).iterdir()).name for text in ("a = 1", "a = 2"))
    assert first != second


def test_old_folders_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setenv("NANO_LLAMA_CACHE", str(tmp_path))
    for number in range(9):
        (tmp_path / "kernels" / str(number)).mkdir(parents=True)
    cache.keep_on_disk()
    assert len(list((tmp_path / "kernels").iterdir())) == cache.KEPT


def test_where_nothing_can_be_written_it_still_compiles(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NANO_LLAMA_CACHE", str(tmp_path / "file"))
    function = njit(double)
    cache.keep_on_disk(function)
    with cache.compiling(tmp_path / "file" / "folder", "double"):
        assert function(3) == 6
