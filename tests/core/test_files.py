"""Atomic writes (old or new, never a part) and bounded JSON; also errors.py and env.py, each a few lines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nano_llama.core import env
from nano_llama.core.errors import EnvironmentFault, FormatError, NanoLlamaError, UserError, import_extra
from nano_llama.core.files import atomic_folder, atomic_path, read_json, write_json


def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "state.json"
    write_json(target, {"step": 1})
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("the writer failed")
    assert read_json(target) == {"step": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_a_kill_leaves_the_old_file(tmp_path):
    target = tmp_path / "state.json"
    write_json(target, {"step": 1})
    script = (
        "import os, signal, sys; from nano_llama.core.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(target)]).returncode == -9
    assert read_json(target) == {"step": 1}


def test_folders_appear_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "model") as folder:
        (folder / "config.json").write_text("{}")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with atomic_folder(tmp_path / "deep" / "model") as folder:
        (folder / "config.json").write_text("{}")
    assert read_json(tmp_path / "deep" / "model" / "config.json") == {}
    with pytest.raises(UserError, match="already exists"), atomic_folder(tmp_path / "deep" / "model"):
        pass


def test_an_unwritable_place_is_the_environments_fault(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="Cannot write"):
        write_json(tmp_path / "file" / "below.json", {})


@pytest.mark.parametrize("junk", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"nul"])
def test_junk_json_is_a_format_error(tmp_path, junk):
    path = tmp_path / "config.json"
    path.write_bytes(junk)
    with pytest.raises(FormatError, match=r"config\.json"):
        read_json(path)


def test_json_is_bounded_and_missing_files_are_named(tmp_path):
    (tmp_path / "big.json").write_text("[" + "1," * 100 + "1]")
    with pytest.raises(FormatError, match="at most 50"):
        read_json(tmp_path / "big.json", max_bytes=50)
    with pytest.raises(UserError, match=r"none\.json"):
        read_json(tmp_path / "none.json")


def test_errors_carry_exit_codes_and_hints():
    assert (NanoLlamaError("x").exit_code, UserError("x").exit_code, FormatError("x").exit_code) == (1, 2, 2)
    assert str(UserError("bad value 3", hint="use 4")) == "bad value 3\nuse 4"
    with pytest.raises(EnvironmentFault, match=r"pip install .*\[fancy\]"):
        import_extra("no_such_package_anywhere", "fancy", "The fancy feature")
    assert import_extra("json", "none", "x").loads("1") == 1


def test_cache_dir_and_offline_follow_the_environment(monkeypatch):
    monkeypatch.setenv("NANO_LLAMA_CACHE", "/a")
    assert env.cache_dir() == Path("/a")
    monkeypatch.delenv("NANO_LLAMA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert env.cache_dir() == Path("/b/nano-llama")
    for name in ("NANO_LLAMA_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv("NANO_LLAMA_OFFLINE", raising=False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        assert not env.offline()
        monkeypatch.setenv(name, "1")
        assert env.offline()


def test_files_are_written_where_a_folder_cannot_be_opened(tmp_path, monkeypatch):
    """As on Windows, which refuses to open folders and to flush what was opened for reading alone."""
    real_open, opened = os.open, []

    def windows_open(path, flags, *mode, **options):
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied", str(path))
        opened.append(flags)
        return real_open(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", windows_open)
    write_json(tmp_path / "a.json", {"a": 1})
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_text("x")
    assert read_json(tmp_path / "a.json") == {"a": 1} and (tmp_path / "folder" / "inner" / "file").is_file()
    assert opened and all(flags & os.O_RDWR for flags in opened)
