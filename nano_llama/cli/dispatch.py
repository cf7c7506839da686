"""From words to a call: cyclopts parses the arguments of one command against the annotations of its `run`.

A command's module may have, beside `run`:
    MORE_OPTIONS    flags that --help leaves out to stay short; --help-all shows them too
    FLAG_ACTIONS    {"--flag": a function like `run`}: called instead of `run` where the flag is given

Every boolean option has its `--no-` form; help.py shows the form that changes the default.
Tests: tests/cli/test_dispatch.py.
"""

import re
import sys
from collections.abc import Collection
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nano_llama.core.errors import UserError

if TYPE_CHECKING:
    import cyclopts

    from nano_llama.cli import Command


def run_command(name: str, command: "Command", args: list[str]) -> int:
    """Parse `args`, call the command's `run` and return its exit code (None is 0). UserError on bad arguments."""
    import cyclopts

    module = import_module(command.module)
    run, more = module.run, getattr(module, "MORE_OPTIONS", ())
    for flag, action in getattr(module, "FLAG_ACTIONS", {}).items():
        if flag in args:
            run, args = action, [word for word in args if word != flag]
    if "--help-all" in args:
        more, args = (), ["--help"]
    app = make_app(name, run, more)
    if not args and _needs_arguments(app):
        args = ["--help"]
        print(f"{name} needs arguments:\n", file=sys.stderr)
        app(args)
        return UserError.exit_code
    try:
        result = app(args, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        raise UserError(_in_our_words(error), hint=f"See  nano-llama {name} --help") from error
    return int(result or 0)


def make_app(name: str, run: Any, hidden: Collection[str] = ()) -> "cyclopts.App":
    """The cyclopts application of one command: its parser, and its help without the `hidden` flags."""
    from cyclopts import App, Parameter

    from nano_llama.cli.common import OUTPUT
    from nano_llama.cli.help import format_panel

    app = App(
        name=f"nano-llama {name}",
        version_flags=[],
        help_formatter=partial(format_panel, hidden=hidden),
        default_parameter=Parameter(negative_bool="no-", negative_iterable=(), show_default=_shown_default),
        result_action="return_value",
        suppress_keyboard_interrupt=False,  # Ctrl-C is answered in exits.py
    )
    app.default(run)
    app["--help"].group = OUTPUT
    return app


def _shown_default(value: Any) -> str | None:
    """None for a default that says nothing: an option that is not given."""
    return None if value is None or value in ((), [], "") else str(value)


def _needs_arguments(app: "cyclopts.App") -> bool:
    return any(argument.required for argument in app.assemble_argument_collection())


def _in_our_words(error: "cyclopts.CycloptsError") -> str:
    """Cyclopts' message, except where its text sounds as if an option that was left out or misspelt had been given."""
    from cyclopts import MissingArgumentError

    text = " ".join(str(error).split())
    if near := re.search(r"Did you mean (\S+) instead of (\S+)\?", text):
        return f"Unknown option {near[2]}. Did you mean {near[1]}?"
    if isinstance(error, MissingArgumentError) and error.argument is not None and "instead of" not in text:
        name = error.argument.name
        if name not in (error.root_input_tokens or ()):
            unused = [word for word in error.unused_tokens or () if word]
            extra = f" (What is {unused[0]!r}? Values follow their option.)" if unused else ""
            return f"{name} is required.{extra}"
    return text
