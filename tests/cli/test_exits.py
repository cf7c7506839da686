"""Every way a run can end: its message, its next step, its exit code, and never a traceback."""

import errno
import json
import subprocess
import sys
import warnings

import pytest

from nano_llama.cli.exits import ending_of, guarded
from nano_llama.core.errors import ConfigError, EnvironmentFault, FormatError, NanoLlamaError, UserError


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


def oserror(code, path="some/file"):
    return OSError(code, "reason", path)


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (UserError("bad value 7", hint="use 8"), 2, "bad value 7"),
        (ConfigError("odd head_dim"), 2, "odd head_dim"),
        (FormatError("x.gguf is cut off"), 2, "x.gguf"),
        (EnvironmentFault("no torch"), 1, "no torch"),
        (NanoLlamaError("other"), 1, "other"),
        (MemoryError(), 1, "Out of memory"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 1, "2 GiB"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"), 1, "Out of memory"),
        (ValueError("Maximum allowed dimension exceeded"), 1, "Out of memory"),
        (oserror(errno.ENOSPC), 1, "disk is full: some/file"),
        (oserror(errno.ENOENT), 2, "some/file"),
        (oserror(errno.EISDIR), 2, "some/file"),
        (oserror(errno.EACCES), 1, "some/file"),
        (oserror(errno.EIO), 1, "some/file"),
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero"),
        (RuntimeError("anything else"), 1, "anything else"),
        (RecursionError("deep"), 1, "RecursionError"),
    ],
)
def test_an_error_ends_with_its_message_hint_and_code(capsys, error, code, says):
    def body():
        raise error

    assert guarded(body) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert "Traceback" not in err
    if not isinstance(error, NanoLlamaError) or error.hint:
        assert len(err.splitlines()) == 2, "message and next step"

    assert guarded(body, as_json=True) == code
    out, err = capsys.readouterr()
    assert err == ""
    said = json.loads(out)
    assert says in said["error"]
    assert said["exit_code"] == code
    assert said["hint"] == ending_of(error).hint


def test_debug_lets_the_exception_through():
    def body():
        raise UserError("shown in full")

    with pytest.raises(UserError, match="shown in full"):
        guarded(body, debug=True)


def test_ctrl_c_is_130(capsys):
    def body():
        raise KeyboardInterrupt

    assert guarded(body) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert "Ctrl-C" in err
    assert guarded(body, as_json=True) == 130
    assert "Ctrl-C" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize(("raised", "code"), [(SystemExit(3), 3), (SystemExit(None), 0), (SystemExit("text"), 1)])
def test_a_library_that_exits_gives_its_code(raised, code):
    def body():
        raise raised

    assert guarded(body) == code


def test_a_warning_is_a_sentence(capsys):
    def body():
        warnings.warn("the key 'x' is unknown", stacklevel=1)
        return 0

    assert guarded(body) == 0
    assert capsys.readouterr().err == "warning: the key 'x' is unknown\n"


def run_python(script, **kwargs):
    return subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, **kwargs)


def test_a_closed_pipe_is_not_an_error():
    script = (
        "import sys; from nano_llama.cli.exits import guarded\n"
        "def body():\n"
        "    for _ in range(100000): print('line')\n"
        "    return 0\n"
        "sys.exit(guarded(body))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


def test_a_terminal_without_the_character_gets_its_escape(monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = run_python("from nano_llama.cli.exits import guarded; guarded(lambda: print('caf\\u00e9') or 0)")
    assert done.stdout == b"caf\\xe9\n"
    assert done.returncode == 0


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["info nano_gpt", "--version", "doctor --nonsense"])
def test_a_closed_standard_stream_changes_no_exit_code(command, closed, tmp_path):
    """cron and services close them. What is opened next must not get their numbers, and be written into."""
    line = f"{sys.executable} -m nano_llama {command} {closed}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == (2 if "nonsense" in command else 0), done.stderr
    assert "bug" not in done.stderr


def test_a_chat_without_standard_input_ends(tmp_path):
    line = f"{sys.executable} -m nano_llama generate --prompt a --max-tokens 2 --quiet <&-"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0 and done.stdout, done.stderr
