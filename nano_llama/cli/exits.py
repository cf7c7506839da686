"""How the command ends: every exception becomes a message, a next step and an exit code, never a traceback.

Imports nothing heavy: every invocation passes through here. (dispatch.py has turned a parse error into a UserError
before it gets here.) Tests: tests/cli/test_exits.py.
"""

import errno
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TextIO

from nano_llama.core.env import first_attempt, neighbour_speaks
from nano_llama.core.errors import EnvironmentFault, NanoLlamaError, SaidByAnother, UserError

INTERRUPTED = 128 + signal.SIGINT  # 130, as in shells
SECONDS_TO_BE_ENDED = 15.0
BROKEN_PIPE = 128 + 13  # as if SIGPIPE had ended us: `nano-llama info x | head -1`

# Errors of the operating system that another argument fixes; the others are the machine's.
_USER_ERRNOS = {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL}


class Ending(NamedTuple):
    """What the user reads, and the exit code."""

    message: str
    hint: str
    code: int


def guarded(body: Callable[[], int], *, as_json: bool = False, debug: bool = False) -> int:
    """Run `body` and return its exit code; whatever it raises is printed for a person (or as one JSON object).

    With `debug` an exception is let through, so that Python shows its traceback.
    """
    open_missing_streams()
    _escape_unencodable_output()
    if refused_before():
        return UserError.exit_code
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            code = body()
            sys.stdout.flush()  # here, where a closed pipe is still caught
            return code
    except BrokenPipeError:
        _stdout_to_devnull()
        return BROKEN_PIPE
    except SystemExit as error:  # a library's; ours return their code
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except KeyboardInterrupt:
        if debug:
            raise
        return report(Ending("Stopped by Ctrl-C.", "", INTERRUPTED), as_json=as_json)
    except BaseException as error:  # a panic in a Rust library is not an Exception
        if debug:
            raise
        ending = ending_of(error)
        if not said_by_another(error):
            report(ending, as_json=as_json)
        if ending.code == UserError.exit_code:
            refuse_next_time()
        return ending.code


def said_by_another(error: BaseException) -> bool:
    """Whether this is one of several processes that end for a reason which another one tells the user.

    An error that names its rank (as a note) is that rank's own. The others all ranks have alike, and the first of each
    machine tells them: this one waits for torchrun, which ends all when one has ended, and tells it if nothing comes.
    """
    if isinstance(error, SaidByAnother):
        return True
    if not isinstance(error, NanoLlamaError) or hasattr(error, "__notes__") or not neighbour_speaks():
        return False
    if error.exit_code < 128:  # all know of a signal, torchrun too
        time.sleep(SECONDS_TO_BE_ENDED)
        return False
    return True


REFUSED = "refused"  # a file in the folder of torchrun's first attempt


def refuse_next_time() -> None:
    """What the user is to change is said once, though torchrun starts processes again whatever they ended with.

    Only what its first attempt finds: later ones go on with a run that has begun, and may find what passes.
    """
    attempt = first_attempt()
    if attempt is not None and attempt.is_this:
        with suppress(OSError):
            (attempt.folder / REFUSED).touch()


def refused_before() -> bool:
    """Whether torchrun has started this process again for what its first attempt has refused."""
    attempt = first_attempt()
    return attempt is not None and not attempt.is_this and (attempt.folder / REFUSED).exists()


def open_missing_streams() -> None:
    """Put the null device where standard input, output or error is closed (`>&-`; cron, services).

    Python has None there, on which any use fails; and the next file that is opened would get the number 0, 1 or 2, so
    that a library's message could be written into a checkpoint.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            if null != number:
                os.dup2(null, number)
                os.close(null)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="replace", closefd=False))  # noqa: SIM115


def ignore_late_interrupts() -> None:
    """The work is done: from now on a Ctrl-C would only interrupt the libraries' cleanup, with a traceback."""
    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def ending_of(error: BaseException) -> Ending:
    """The message, next step and exit code that belong to an exception. Its notes stand before the next step."""
    message, hint, code = _ending_of(error)
    return Ending(message, "\n".join([*getattr(error, "__notes__", []), *filter(None, [hint])]), code)


def _ending_of(error: BaseException) -> Ending:
    if isinstance(error, NanoLlamaError):
        return Ending(error.message, error.hint, error.exit_code)
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
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
        code = UserError.exit_code if error.errno in _USER_ERRNOS else EnvironmentFault.exit_code
        return Ending(f"Cannot use{where or ' a file'}: {error.strerror}.", "Check the path and its permissions.", code)
    return Ending(
        f"Something went wrong inside nano-llama ({type(error).__name__}: {error}).",
        "This is a bug in nano-llama. Run the same command with --debug and report what it prints.",
        EnvironmentFault.exit_code,
    )


def report(ending: Ending, *, as_json: bool = False) -> int:
    """Print an ending, to stderr for a person or as one JSON object on stdout, and return its exit code."""
    with suppress(BrokenPipeError):
        if as_json:
            print(json.dumps({"error": ending.message, "hint": ending.hint, "exit_code": ending.code}), flush=True)
        else:
            by_signal = ending.code >= 128
            lines = [ending.message if by_signal else f"error: {ending.message}", ending.hint]
            print(visible("\n".join(filter(None, lines))), file=sys.stderr, flush=True)
    return ending.code


def visible(text: str) -> str:
    """`text` with control characters escaped: file names, metadata and models may hold codes that act on a terminal."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character in "\n\t" or character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) > 0xFF else f"\\x{ord(character):02x}"


# What NumPy and torch (on the CPU) say, in errors of a general type, when an array exceeds all memory.
_OUT_OF_MEMORY_WORDS = ("not enough memory", "Maximum allowed dimension exceeded", "array is too big")


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether an error other than MemoryError means that, found without importing torch."""
    if type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError | ValueError) and any(words in str(error) for words in _OUT_OF_MEMORY_WORDS)


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """The warning as a sentence, without the source line that Python would add."""
    print(f"warning: {visible(str(message))}", file=sys.stderr)


def _escape_unencodable_output() -> None:
    """A character that the terminal cannot show is printed as an escape instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # a test's stand-in has no such method
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _stdout_to_devnull() -> None:
    """Redirect stdout, so that Python's last flush at exit does not fail on the closed pipe again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
