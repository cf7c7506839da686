"""From words to a call: cyclopts parses the arguments of one command against the annotations of its `run`.

A command's module may have, beside `run`:
    MORE_OPTIONS    flags that --help leaves out to stay short; --help-all shows them too
    FLAG_ACTIONS    {"--flag": a function like `run`}: called instead of `run` where the flag is given
    EXAMPLE         arguments that work, shown where one is missing
    NEEDS           {"--flag": what can bring its value instead}: needed, though the signature of `run` does not say so;
                    by an action too, if it takes that flag

A parameter of `run` that is not parsed gets the table of commands (completion.py).
Every boolean option has its `--no-` form; help.py shows the form that changes the default.
Tests: tests/cli/test_dispatch.py.
"""

import inspect
import re
from collections.abc import Collection, Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nano_llama.core.errors import UserError

if TYPE_CHECKING:
    import cyclopts

    from nano_llama.cli import Command


def run_command(name: str, commands: "Mapping[str, Command]", args: list[str]) -> int:
    """Parse `args`, call the command's `run` and return its exit code (None is 0). UserError on bad arguments."""
    import cyclopts

    module = import_module(commands[name].module)
    run, more, needs = module.run, getattr(module, "MORE_OPTIONS", ()), getattr(module, "NEEDS", {})
    words = [name]
    for flag, action in getattr(module, "FLAG_ACTIONS", {}).items():
        if flag in args:
            run, words, args = action, [name, flag], [word for word in args if word != flag]
    if "--help-all" in args:
        more, args = (), ["--help"]
    app = make_app(name, run, more)
    see = f"See  nano-llama {name} --help"  # on the line of the error: a misspelt option deserves no paragraph
    example = (
        f"For example:  nano-llama {' '.join([name, module.EXAMPLE, *words[1:]])}"
        if hasattr(module, "EXAMPLE")
        else see
    )
    flags = {word.partition("=")[0] for word in args}
    taken = {option for argument in _parsed(app) for option in argument.names}
    needed = [
        flag for flag, instead in needs.items() if flag in taken and flags.isdisjoint({flag, *instead, "--help", "-h"})
    ]
    try:
        call, bound, not_parsed = app.parse_args(args, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        first = _left_out(error)
        if first is None:
            raise UserError(f"{_in_our_words(error)} {see}") from error
        required = [argument for argument in _parsed(app) if argument.required]
        maybe = required[[argument.name for argument in required].index(first) :]  # those before it are there
        needed += [_shown_name(argument) for argument in maybe if flags.isdisjoint(argument.names)]
        if unused := [word for word in error.unused_tokens or () if word]:
            example = f"(What is {unused[0]!r}? Values follow their option.) {see}"
    if needed:
        raise UserError(
            f"{' '.join(words)} needs {' and '.join(filter(None, [', '.join(needed[:-1]), needed[-1]]))}. {example}"
        )
    return int(call(*bound.args, **bound.kwargs, **dict.fromkeys(not_parsed, commands)) or 0)


def make_app(name: str, run: Any, hidden: Collection[str] = ()) -> "cyclopts.App":
    """The cyclopts application of one command: its parser, and its help without the `hidden` flags."""
    from cyclopts import App, Parameter

    from nano_llama.cli.common import OUTPUT
    from nano_llama.cli.help import format_panel

    app = App(
        name=f"nano-llama {name}",
        version_flags=[],
        help_format="plaintext",
        help=_description(run),
        help_formatter=partial(format_panel, hidden=hidden),
        default_parameter=Parameter(negative_bool="no-", negative_iterable=(), show_default=_shown_default),
        result_action="return_value",
        suppress_keyboard_interrupt=False,  # Ctrl-C is answered in exits.py
    )
    app.default(run)
    app["--help"].group = OUTPUT
    app.usage = f"{app.name[0]}{_usage(app)}"
    return app


def _description(run: Any) -> str:
    """The docstring up to its parameters, each paragraph on one line: the help wraps it to the screen's width."""
    text = (inspect.getdoc(run) or "").partition("\nParameters\n")[0]
    return "\n\n".join(" ".join(paragraph.splitlines()) for paragraph in text.strip().split("\n\n"))


def _usage(app: "cyclopts.App") -> str:
    """ " MODEL --out OUT [OPTIONS]": what may stand without its option, in brackets where it need not be given, and
    what is required.
    """
    words = []
    for argument in _parsed(app):
        if argument.index is not None:
            words.append(_shown_name(argument) if argument.required else f"[{_shown_name(argument)}]")
        elif argument.required:
            words.append(f"{argument.name} {argument.name.removeprefix('--').replace('-', '_').upper()}")
    return "".join(f" {word}" for word in [*words, "[OPTIONS]"])


def _shown_default(value: Any) -> str | None:
    """None for a default that says nothing: an option that is not given."""
    return None if value is None or value in ((), [], "") else str(value)


def _left_out(error: "cyclopts.CycloptsError") -> str | None:
    """The first argument that is missing, if that is the error: not misspelt, and not given without its value."""
    from cyclopts import MissingArgumentError

    if not isinstance(error, MissingArgumentError) or error.argument is None or "instead of" in str(error):
        return None
    return None if error.argument.name in (error.root_input_tokens or ()) else error.argument.name


def _parsed(app: "cyclopts.App") -> "list[cyclopts.Argument]":
    """What the user may give: a parameter that is not parsed is given by run_command."""
    return [argument for argument in app.assemble_argument_collection() if argument.parse]


def _shown_name(argument: "cyclopts.Argument") -> str:
    """ "--out", or "MODEL" for what may stand without its option."""
    return argument.name if argument.index is None else argument.name.removeprefix("--").upper()


def _in_our_words(error: "cyclopts.CycloptsError") -> str:
    """Cyclopts' message, except where its text sounds as if an option that was misspelt had been given."""
    from cyclopts import UnusedCliTokensError

    text = " ".join(str(error).split())
    if isinstance(error, UnusedCliTokensError):
        return f"What is {' '.join(error.unused_tokens or ())!r}? Values follow their option."
    if near := re.search(r"Did you mean (\S+) instead of (\S+)\?", text):
        return f"Unknown option {near[2]}. Did you mean {near[1]}?"
    return text
