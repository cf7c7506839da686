"""Every way a run can end: its message, its next step, its exit code, and never a traceback."""

import errno
import json
import subprocess
import sys
import warnings

import pytest

from nano_llama.cli import exits
from nano_llama.cli.exits import ending_of, guarded
from nano_llama.core.errors import (
    ConfigError,
    EnvironmentFault,
    FormatError,
    NanoLlamaError,
    SaidByAnother,
    UserError,
)
from nano_llama.training.outcome import interrupted
from nano_llama.training.run_folder import RunFolder


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


@pytest.fixture
def second_of_its_machine(monkeypatch):
    """torchrun has started this process and one before it."""
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    waited = []
    monkeypatch.setattr(exits.time, "sleep", waited.append)
    return waited


def ended_by(error, capsys):
    def body():
        raise error

    return guarded(body), capsys.readouterr().err


def test_what_all_ranks_have_the_first_of_a_machine_says(second_of_its_machine, capsys, monkeypatch):
    """The others wait for torchrun to end them; a process that is still there says it, rather than nobody."""
    code, err = ended_by(UserError("bad value 7"), capsys)
    assert (code, second_of_its_machine) == (2, [exits.SECONDS_TO_BE_ENDED]) and "bad value 7" in err
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert ended_by(UserError("bad value 7"), capsys)[0] == 2 and len(second_of_its_machine) == 1


def test_a_signal_is_told_by_the_first_of_a_machine_alone(second_of_its_machine, capsys):
    assert ended_by(interrupted(RunFolder("run"), 7, 15), capsys) == (143, "") and not second_of_its_machine


def test_a_rank_that_names_itself_says_it_at_once(second_of_its_machine, capsys):
    error = EnvironmentFault("The disk is full.", hint="Free some space.")
    error.add_note("This was rank 5 of 8, on b.")
    code, err = ended_by(error, capsys)
    assert code == 1 and err.splitlines()[1:] == ["This was rank 5 of 8, on b.", "Free some space."]
    assert not second_of_its_machine


def test_nothing_is_said_twice(second_of_its_machine, capsys):
    assert ended_by(SaidByAnother(RuntimeError("closed")), capsys) == (1, "")


@pytest.fixture
def attempt(monkeypatch, tmp_path):
    """attempt(1): torchrun has restarted this process once."""

    def begin(number, restarts=3):
        folder = tmp_path / f"attempt_{number}" / "0"
        folder.mkdir(parents=True)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(folder / "error.json"))
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(number))
        monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", str(restarts))

    return begin


@pytest.mark.parametrize("error", [UserError("bad value 7"), SaidByAnother(RuntimeError("closed"), exit_code=2)])
def test_what_torchrun_s_first_attempt_refuses_is_not_tried_again(attempt, capsys, error):
    attempt(0)
    assert ended_by(error, capsys)[0] == 2
    for number in (1, 2):
        attempt(number)
        assert guarded(lambda: pytest.fail("it ran")) == 2 and capsys.readouterr() == ("", "")


def test_a_machine_s_fault_or_what_a_later_attempt_finds_is_tried_again(attempt, capsys):
    attempt(0)
    assert ended_by(EnvironmentFault("The disk is full."), capsys)[0] == 1
    attempt(1)
    assert ended_by(UserError("bad value 7"), capsys)[0] == 2
    attempt(2)
    assert guarded(lambda: 0) == 0


def test_without_restarts_nothing_is_left_in_torchrun_s_folder(attempt, capsys, tmp_path):
    attempt(0, restarts=0)
    assert ended_by(UserError("bad value 7"), capsys)[0] == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["attempt_0", "0"]


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
