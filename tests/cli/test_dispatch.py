"""Arguments of a command: parsed as annotated, and refused in our own words."""

import shlex
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Literal

import pytest
from cyclopts import Parameter

from nano_llama.cli import COMMANDS
from nano_llama.cli.common import Count, Output
from nano_llama.cli.dispatch import make_app
from nano_llama.cli.exits import guarded
from nano_llama.core.errors import UserError

calls = []
flags = []


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class More:
    """Options of a group."""

    kind: Literal["fast", "slow"] = "fast"
    "How it is done."


def run(
    *,
    model: Path,
    prompt: Annotated[str, Parameter(allow_leading_hyphen=True)] = "",
    steps: Count = 5,
    sort: bool = True,
    merge: bool | None = None,
    more: More | None = None,
    output: Output | None = None,
) -> int | None:
    """Do a thing.

    Parameters
    ----------
    steps
        How often.
    sort
        In order.
    merge
        As one.
    """
    calls.append((model, prompt, steps, more or More(), output or Output()))
    flags.append((sort, merge))
    return 7 if steps == 77 else None


@pytest.fixture
def command(monkeypatch, capsys):
    from nano_llama.cli import Command, dispatch

    monkeypatch.setattr(dispatch, "import_module", lambda name: SimpleNamespace(run=run))
    calls.clear()
    flags.clear()

    def call(*args):
        code = guarded(
            lambda: dispatch.run_command("thing", {"thing": Command("anywhere", "help", "group")}, list(args))
        )
        return code, *capsys.readouterr()

    return call


def test_values_arrive_with_their_types(command):
    assert command("--model", "a/b", "--steps", "3", "--kind", "slow", "--json")[0] == 0
    assert calls == [(Path("a/b"), "", 3, More(kind="slow"), Output(json=True))]


def test_the_exit_code_is_the_command_s(command):
    assert command("--model", "x", "--steps", "77")[0] == 7


@pytest.mark.parametrize("text", ["-", "-5", "- item", "--what", "--json", ""])
def test_a_prompt_may_begin_with_a_hyphen(command, text):
    assert command("--model", "x", "--prompt", text)[0] == 0
    assert calls[0][1] == text


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--steps", "3"], "thing needs --model."),
        (["--steps", "3", "stray"], "What is 'stray'?"),
        (["--model"], "--model"),
        (["--model", "x", "--steps", "0"], '"0" for --steps. Must be >= 1'),
        (["--model", "x", "--steps", "many"], '"many"'),
        (["--model", "x", "--steps", "1.5"], '"1.5"'),
        (["--model", "x", "--kind", "slw"], 'Did you mean "slow"'),
        (["--model", "x", "--stpes", "3"], "--stpes"),
        (["--model", "x", "--model", "y"], "--model"),
        (["--model", "x", "stray"], "stray"),
    ],
)
def test_a_mistake_is_named_and_exits_2(command, args, says):
    code, out, err = command(*args)
    assert code == 2
    assert out == ""
    assert says in err
    assert "See  nano-llama thing --help" in err
    assert not calls


@pytest.mark.parametrize("args", [(), ("--modle", "x"), ("--steps", "0", "--model", "x"), ("--model", "x", "stray")])
def test_a_usage_error_is_one_line(command, args):
    code, out, err = command(*args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.endswith("See  nano-llama thing --help\n")


def train(first: Path, /, *, out: Path, lr: float, preset: str = "", data: str = "") -> None: ...


@pytest.mark.parametrize(
    ("args", "needed"),
    [
        ((), "--data, FIRST, --out and --lr"),
        (("--lr", "1"), "--data, FIRST and --out"),
        (("--lr=1", "--data", "x"), "FIRST and --out"),
        (("a", "--preset", "x"), "--out and --lr"),
        (("a", "--lr", "1", "--out", "x"), "--data"),
    ],
)
def test_all_that_is_missing_is_said_at_once_with_an_example(monkeypatch, args, needed):
    from nano_llama.cli import Command, dispatch

    module = SimpleNamespace(run=train, EXAMPLE="a --data b", NEEDS={"--data": ("--preset",)})
    monkeypatch.setattr(dispatch, "import_module", lambda name: module)
    with pytest.raises(UserError) as error:
        dispatch.run_command("thing", {"thing": Command("anywhere", "help", "group")}, list(args))
    assert error.value.message == f"thing needs {needed}. For example:  nano-llama thing a --data b"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_a_command_is_parsed_and_lacks_nothing(name):
    """What an error offers must not end in the next error; and a command without one works bare."""
    module = import_module(COMMANDS[name].module)
    args = shlex.split(getattr(module, "EXAMPLE", ""))
    app = make_app(name, module.run)
    app.parse_args(args, exit_on_error=False, print_error=False)
    flags = {flag for argument in app.assemble_argument_collection() for flag in argument.names}
    for flag, instead in getattr(module, "NEEDS", {}).items():
        assert flag in args and flags >= {flag, *instead}


def test_the_usage_shows_what_may_stand_without_an_option(capsys):
    def open_it(model: str | None = None, *, prompt: str, output: Output | None = None) -> None:
        """Open a model
        that is long enough to be wrapped.

        Parameters
        ----------
        model
            Where <image> is read.
        """

    make_app("open", open_it)(["--help"])
    out = capsys.readouterr().out
    assert out.startswith("nano-llama open [MODEL] --prompt PROMPT [OPTIONS]\n\nOpen a model that is long enough")
    assert "MODEL, --model  Where <image> is read." in out
    assert not [line for line in out.splitlines() if line != line.rstrip()]


def test_help_shows_defaults_that_say_something(capsys):
    make_app("thing", run)(["--help"])
    text = capsys.readouterr().out
    assert "How often. [default: 5]" in " ".join(text.split())
    assert "default: False" not in text
    assert "default: ]" not in text
    assert "--no-json" not in text, "a flag that is off is switched on"
    assert "--no-sort" in text and "--sort" not in text.replace("--no-sort", ""), "one that is on is switched off"
    assert "--[no-]merge" in text, "one with no default either way"


@pytest.mark.parametrize(
    ("args", "values"),
    [
        ([], (True, None)),
        (["--no-sort"], (False, None)),
        (["--sort", "--merge"], (True, True)),
        (["--sort=false", "--no-merge"], (False, False)),
    ],
)
def test_boolean_flags_have_a_negative_form(command, args, values):
    assert command("--model", "x", *args)[0] == 0
    assert flags == [values]


def test_help_leaves_out_more_options_and_help_all_shows_them(monkeypatch, capsys):
    from nano_llama.cli import Command, dispatch

    module = SimpleNamespace(run=run, MORE_OPTIONS=frozenset({"--steps", "--kind"}))
    monkeypatch.setattr(dispatch, "import_module", lambda name: module)
    row = {"thing": Command("anywhere", "help", "group")}
    assert dispatch.run_command("thing", row, ["--help"]) == 0
    short = capsys.readouterr().out
    assert dispatch.run_command("thing", row, ["--help-all"]) == 0
    long = capsys.readouterr().out
    assert "--model" in short and "--steps" not in short and "--kind" not in short
    assert "--model" in long and "--steps" in long and "--kind" in long
    assert dispatch.run_command("thing", row, ["--model", "x", "--steps", "77"]) == 7, "what is not shown works"


def test_a_flag_action_runs_instead_of_the_command(monkeypatch, capsys):
    from nano_llama.cli import Command, dispatch

    def answer(*, output: Output | None = None) -> int:
        """Answer."""
        calls.append(output)
        return 5

    calls.clear()
    module = SimpleNamespace(run=run, FLAG_ACTIONS={"--which": answer})
    monkeypatch.setattr(dispatch, "import_module", lambda name: module)
    assert dispatch.run_command("thing", {"thing": Command("anywhere", "help", "group")}, ["--which", "--json"]) == 5
    assert calls == [Output(json=True)]


def test_ctrl_c_is_handled_by_us_and_not_by_the_parser(monkeypatch, command):
    class Interrupted(list):
        def append(self, item):
            raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules[__name__], "calls", Interrupted())
    code, out, err = command("--model", "a")
    assert (code, out) == (130, "")
    assert "Stopped by Ctrl-C" in err


def test_a_misspelt_option_is_named(command):
    code, _, err = command("--modle", "x", "--steps", "3")
    assert code == 2
    assert "Unknown option --modle. Did you mean --model?" in err and "requires an argument" not in err
