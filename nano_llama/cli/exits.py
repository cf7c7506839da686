"""How a run of the command ends: every exception becomes a message, a next step and an exit code, never a traceback.

Not here: parsing (dispatch.py turns a parse error into a UserError first). Imports nothing heavy, because every
invocation passes through. Tests: tests/cli/test_exits.py.
"""

import errno
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TextIO

from nano_llama.core.errors import EnvironmentFault, NanoLlamaError, UserError

INTERRUPTED = 128 + signal.SIGINT  # 130, as shells have it
READER_GONE = 128 + 13  # as if SIGPIPE had ended us: `nano-llama info x | head -1`

# The operating system's errors that the user mends with another argument; the others are the machine's.
_USERS_MISTAKE = {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL}


class Ending(NamedTuple):
    """What the user reads, and the exit code."""

    message: str
    hint: str
    code: int


def guarded(body: Callable[[], int], *, as_json: bool = False, debug: bool = False) -> int:
    """Run `body` and return its exit code; whatever it raises is printed for a person (or as one JSON object).

    With `debug` an exception is let through, so that Python shows its traceback.
    """
    _never_fail_on_an_odd_character()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            code = body()
            sys.stdout.flush()  # here, where a closed pipe can still be answered
            return code
    except BrokenPipeError:
        _forget_stdout()
        return READER_GONE
    except SystemExit as error:  # a library's; ours return their code
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except KeyboardInterrupt:
        if debug:
            raise
        return report(Ending("Stopped by Ctrl-C.", "", INTERRUPTED), as_json=as_json)
    except BaseException as error:  # a panic in a Rust library is no Exception
        if debug:
            raise
        return report(ending_of(error), as_json=as_json)


def leave_in_peace() -> None:
    """All is said: a Ctrl-C from now on would only interrupt the libraries' own leave-taking, with a traceback."""
    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def ending_of(error: BaseException) -> Ending:
    """The message, next step and exit code that belong to an exception."""
    if isinstance(error, NanoLlamaError):
        return Ending(error.message, error.hint, error.exit_code)
    if isinstance(error, MemoryError) or _wants_too_much_memory(error):
        detail = " ".join(str(error).split()[:24])
        return Ending(
            f"Out of memory{': ' + detail if detail else ''}.",
            "Use a smaller model, --batch-size or --context, or close other programs.",
            EnvironmentFault.exit_code,
        )
    if isinstance(error, OSError) and error.errno is not None:
        where = f" {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "Free some space, or write elsewhere (--out; NANO_LLAMA_CACHE moves the cache)."
            return Ending(f"The disk is full{':' if where else ''}{where}.", hint, EnvironmentFault.exit_code)
        code = UserError.exit_code if error.errno in _USERS_MISTAKE else EnvironmentFault.exit_code
        return Ending(f"Cannot use{where or ' a file'}: {error.strerror}.", "Check the path and its permissions.", code)
    return Ending(
        f"Something went wrong inside nano-llama ({type(error).__name__}: {error}).",
        "That is a bug of ours. Run the same command with --debug and report what it prints.",
        EnvironmentFault.exit_code,
    )


def report(ending: Ending, *, as_json: bool = False) -> int:
    """Print an ending: to stderr for a person, or as one JSON object on stdout. Returns its exit code."""
    with suppress(BrokenPipeError):
        if as_json:
            print(json.dumps({"error": ending.message, "hint": ending.hint, "exit_code": ending.code}), flush=True)
        else:
            by_a_signal = ending.code >= 128
            lines = [ending.message if by_a_signal else f"error: {ending.message}", ending.hint]
            print(visible("\n".join(filter(None, lines))), file=sys.stderr, flush=True)
    return ending.code


def visible(text: str) -> str:
    """`text` without power over the terminal: a file's metadata or name, or a model, may hold escape codes."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character in "\n\t" or character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) > 0xFF else f"\\x{ord(character):02x}"


# How NumPy and torch (on the CPU) call an array beyond all memory: in errors of a general kind.
_TOO_MUCH = ("not enough memory", "Maximum allowed dimension exceeded", "array is too big")


def _wants_too_much_memory(error: BaseException) -> bool:
    """An out-of-memory error by another name, told without importing torch."""
    if type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError | ValueError) and any(words in str(error) for words in _TOO_MUCH)


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as a sentence; the source line that Python would add helps no user."""
    print(f"warning: {visible(str(message))}", file=sys.stderr)


def _never_fail_on_an_odd_character() -> None:
    """A terminal that cannot show a character gets its escape instead of an exception."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # a test's stand-in has no such method
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _forget_stdout() -> None:
    """Point stdout at nothing, so that Python's last flush at exit does not fail on the closed pipe again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
