"""The root command: its help, its version, unknown commands, and what it does not import."""

import importlib
import inspect
import logging
import subprocess
import sys

import pytest

from nano_llama import __version__
from nano_llama.cli import COMMANDS, root_help

HEAVY = {"cyclopts", "rich", "numpy", "torch", "tokenizers", "numba", "matplotlib", "transformers"}


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"], ["--version"], ["nonsense"], ["help"]])
def test_answers_without_importing_anything_heavy(args):
    script = f"import sys; from nano_llama.cli import main; main({args!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert "nano_llama" in loaded
    assert not loaded & HEAVY


def test_help_names_every_command_under_its_heading():
    text = root_help()
    for name, command in COMMANDS.items():
        assert f"\n  {name} " in text
        assert command.help in text
        assert f"\n{command.group}\n" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_screen_of_any_width_breaks_no_word(columns):
    text = root_help(columns)
    assert text.split() == root_help().split()
    assert max(map(len, text.splitlines())) <= columns
    assert (text == root_help()) is (columns == 200)
    if columns == 60:
        assert "\n  quickstart  Train a small LLaMA in about 90 seconds,\n              offline.\n" in text


def test_no_arguments_is_help(cli):
    assert cli() == (0, root_help(), "")
    assert cli("--help").out == root_help()


def test_version(cli):
    assert cli("--version") == (0, f"nano-llama {__version__}\n", "")


def test_python_m_is_the_same():
    done = subprocess.run([sys.executable, "-m", "nano_llama", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"nano-llama {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_s_module_has_a_documented_run(name):
    run = importlib.import_module(COMMANDS[name].module).run
    assert inspect.getdoc(run)
    assert "output" in inspect.signature(run).parameters


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_the_common_options(cli, name):
    done = cli(name, "--help")
    assert (done.code, done.err) == (0, "")
    for option in ("--json", "--quiet", "--debug", "--help"):
        assert option in done.out
    assert cli("help", name).out == done.out
    assert cli(name, "--help-all").code == 0


@pytest.mark.parametrize(("word", "meant"), [("tarin", "train"), ("generat", "generate"), ("export-model", "export")])
def test_an_unknown_command_is_named_and_a_near_one_offered(cli, word, meant):
    done = cli(word)
    assert done.code == 2
    assert f"Unknown command {word!r}" in done.err
    assert f"nano-llama {meant} ?" in done.err
    assert done.out == ""


def test_an_unknown_command_without_a_near_one_gets_the_list(cli):
    done = cli("xyzzy")
    assert done.code == 2
    assert "Did you mean" not in done.err
    assert all(name in done.err for name in COMMANDS)


def test_an_option_before_the_command(cli):
    done = cli("--quiet", "info", "x")
    assert done.code == 2
    assert "--quiet" in done.err
    assert "command comes first" in done.err


@pytest.mark.parametrize("word", ["--completion", "--install-completion"])
def test_an_option_that_is_a_command_here(cli, word):
    done = cli(word, "bash")
    assert done.code == 2
    assert "nano-llama completion" in done.err


def test_errors_as_json(cli):
    done = cli("tarin", "--json")
    assert done.code == 2
    assert "tarin" in done.json["error"]
    assert "train" in done.json["hint"]
    assert done.err == ""


def test_the_installed_command_answers():
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from nano_llama.cli import main; sys.exit(main())", "nope"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_quiet_is_this_command_s_alone(cli):
    """A program that calls main, as tests do, hears of what comes after."""
    log = logging.getLogger("nano_llama")
    before = log.level
    for arguments in (("info", "nano_gpt"), ("info", "nothing-of-this-name.gguf")):
        cli(*arguments, "--quiet")
        assert log.level == before
