"""From words to a call: the arguments of one verb are read by cyclopts against the annotations of its `run`.

A verb's module may have, beside `run`:
    MORE_OPTIONS    flags that --help leaves out, so that it fits a reader's head; --help-all shows them too
    QUESTIONS       {"--flag": a function like `run`}: answered instead of running the verb

Not here: which verbs exist (__init__.py), and what they do. Tests: tests/cli/test_dispatch.py.
"""

import sys
from collections.abc import Collection
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nano_llama.core.errors import UserError

if TYPE_CHECKING:
    import cyclopts

    from nano_llama.cli import Verb


def run_verb(name: str, verb: "Verb", args: list[str]) -> int:
    """Parse `args`, call the verb's `run` and return its exit code (None counts as 0). UserError on bad arguments."""
    import cyclopts

    module = import_module(verb.module)
    run, more = module.run, getattr(module, "MORE_OPTIONS", ())
    for flag, answer in getattr(module, "QUESTIONS", {}).items():
        if flag in args:
            run, args = answer, [word for word in args if word != flag]
    if more and "--help-all" in args:
        more, args = (), ["--help"]
    app = make_app(name, run, more)
    if not args and _needs_arguments(app):
        args = ["--help"]  # a bare verb is a question
        print(f"{name} needs arguments:\n", file=sys.stderr)
        app(args)
        return UserError.exit_code
    try:
        result = app(args, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        raise UserError(_in_our_words(error), hint=f"See  nano-llama {name} --help") from error
    return int(result or 0)


def make_app(name: str, run: Any, hidden: Collection[str] = ()) -> "cyclopts.App":
    """The cyclopts application of one verb: its parser, and its help without the `hidden` flags."""
    from cyclopts import App, Parameter

    from nano_llama.cli.common import OUTPUT
    from nano_llama.cli.help import format_panel

    app = App(
        name=f"nano-llama {name}",
        version_flags=[],
        help_formatter=partial(format_panel, hidden=hidden),
        default_parameter=Parameter(negative="", show_default=_shown_default),
        result_action="return_value",
        suppress_keyboard_interrupt=False,  # Ctrl-C is answered in exits.py
    )
    app.default(run)
    app["--help"].group = OUTPUT
    return app


def _shown_default(value: Any) -> str | None:
    """Defaults that say nothing are not shown: a flag is off, an option is not given."""
    return None if value is None or value is False or value in ((), [], "") else str(value)


def _needs_arguments(app: "cyclopts.App") -> bool:
    return any(argument.required for argument in app.assemble_argument_collection())


def _in_our_words(error: "cyclopts.CycloptsError") -> str:
    """Cyclopts' message, but an option that was left out is "required": its own text sounds as if it had been given."""
    from cyclopts import MissingArgumentError

    text = " ".join(str(error).split())
    if isinstance(error, MissingArgumentError) and error.argument is not None and "instead of" not in text:
        name = error.argument.name
        if name not in (error.root_input_tokens or ()):
            strangers = [word for word in error.unused_tokens or () if word]
            extra = f" (What is {strangers[0]!r}? Values follow their option.)" if strangers else ""
            return f"{name} is required.{extra}"
    return text
